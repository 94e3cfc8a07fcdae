// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The multipart uploads that a service keeps open, page by page.

use super::client::attempt;
use super::error::classify;
use super::{CONTROL, Error, MultipartId, OpenMultipart, Request, S3};

/// What all our objects are below.
const ROOT: &str = "v1/";

pub(super) async fn open(store: &S3) -> Result<Vec<OpenMultipart>, Error> {
    let mut open = Vec::new();
    let mut after: (Option<String>, Option<String>) = (None, None);
    loop {
        let request = store.client.list_multipart_uploads().bucket(&*store.bucket);
        let request = request.prefix(store.full_key(ROOT)).set_key_marker(after.0.clone());
        let request = request.set_upload_id_marker(after.1.clone());
        let answer = request.customize().config_override(attempt(CONTROL)).send().await;
        let answer = answer.map_err(|error| classify(Request::ListMultiparts, ROOT, error))?;
        let page = answer.uploads.unwrap_or_default().into_iter().filter_map(|upload| {
            let key = upload.key?.strip_prefix(&*store.prefix)?.to_owned();
            Some(OpenMultipart { key, id: MultipartId(upload.upload_id?) })
        });
        open.extend(page);
        let next = (answer.next_key_marker, answer.next_upload_id_marker);
        // A service that says that there is more, but not where, would be asked for ever.
        if !answer.is_truncated.unwrap_or_default() || next.0.is_none() || next == after {
            return Ok(open);
        }
        after = next;
    }
}
