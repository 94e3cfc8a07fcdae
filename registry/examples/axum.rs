// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A registry inside another axum application, which keeps its own routes.
//!
//! `cargo run --example axum -- 127.0.0.1:5000 ./data`, then push to `127.0.0.1:5000/app`.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::routing::get;
use stowage_registry::Registry;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let folder = arguments.next().map_or_else(|| std::env::temp_dir().join("stowage-example"), PathBuf::from);

    let registry = Registry::builder().open(&folder).await?;
    let application = Router::new()
        .route("/", get(|| async { "an application with a registry in it\n" }))
        .merge(stowage_registry::router(&registry));

    let listener = tokio::net::TcpListener::bind(address).await?;
    #[expect(clippy::print_stdout, reason = "tells where it listens")]
    {
        println!("http://{}", listener.local_addr()?);
    }
    let service = application.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(terminated()).await?;
    registry.close().await;
    Ok(())
}

async fn terminated() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        tracing::warn!(%error, "no signals here");
    }
}
