// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A hook that is told of each manifest that was pushed, once it is committed.
//!
//! `cargo run --example hook -- 127.0.0.1:5000 ./data`, then push; each push prints a line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use stowage_oci::Name;
use stowage_registry::Registry;
use stowage_registry::domain::{Hook, Pushed};

struct Announce;

#[async_trait]
impl Hook for Announce {
    #[expect(clippy::print_stdout, reason = "the example's purpose")]
    async fn manifest_pushed(&self, repository: &Name, pushed: &Pushed) {
        let tags: Vec<_> = pushed.tags.iter().map(ToString::to_string).collect();
        println!("pushed {repository}@{} {}", pushed.digest, tags.join(" "));
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let folder = arguments.next().map_or_else(|| std::env::temp_dir().join("stowage-example"), PathBuf::from);

    let registry = Registry::builder().hook(Arc::new(Announce)).open(&folder).await?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    #[expect(clippy::print_stdout, reason = "tells where it listens")]
    {
        println!("http://{}", listener.local_addr()?);
    }
    let service = registry.router().into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}
