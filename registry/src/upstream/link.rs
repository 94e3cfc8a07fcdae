// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Where a list goes on: the `Link` header (RFC 8288; pure).

use http::HeaderMap;
use http::header::LINK;

/// The target of the first link whose relation is `next`.
pub(super) fn next(headers: &HeaderMap) -> Option<String> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(next_in)
}

/// `<target>; name=value; name="quoted"`, several of them with commas between.
fn next_in(mut text: &str) -> Option<String> {
    loop {
        let (_, rest) = text.split_once('<')?;
        let (target, rest) = rest.split_once('>')?;
        let end = unquoted(rest, ',').unwrap_or(rest.len());
        let (parameters, others) = rest.split_at_checked(end)?;
        if is_next(parameters) {
            return Some(target.trim().to_owned());
        }
        text = others;
    }
}

fn is_next(mut parameters: &str) -> bool {
    while let Some(start) = unquoted(parameters, ';') {
        let Some((_, rest)) = parameters.split_at_checked(start + 1) else { return false };
        let end = unquoted(rest, ';').unwrap_or(rest.len());
        let (parameter, others) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            return relations.any(|relation| relation.eq_ignore_ascii_case("next"));
        }
        parameters = others;
    }
    false
}

/// Where `wanted` stands outside of quotes.
fn unquoted(text: &str, wanted: char) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if character == wanted && !is_quoted => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn w799_the_next_page_is_found_among_links() {
        for (text, target) in [
            ("</v2/a/tags/list?last=b&n=1>; rel=\"next\"", Some("/v2/a/tags/list?last=b&n=1")),
            ("</x?a=1,2;3>;rel=next", Some("/x?a=1,2;3")),
            ("</first>; rel=\"first\", </n>; title=\"a, b; <c>\"; rel=\"prev next\"", Some("/n")),
            ("</n>; REL=NEXT", Some("/n")),
            ("<https://h/n>; title=\"\\\"\"; rel=next", Some("https://h/n")),
            ("</n>; rel=\"last\"", None),
            ("</n>", None),
            ("rel=next", None),
            ("</n; rel=next", None),
        ] {
            assert_eq!(next_in(text).as_deref(), target, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_an_end(text: String) {
            let _any = next_in(&text);
        }
    }
}
