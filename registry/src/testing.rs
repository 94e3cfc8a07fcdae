// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Registries for tests: a real one each, on a port of its own, gone with its guard.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let registry = stowage_registry::testing::start().await;
//! println!("push to {}", registry.host());
//! # });
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::embedded::{Builder, Registry};

/// A registry that serves on loopback until it is dropped, with its own data.
pub struct TestRegistry {
    address: SocketAddr,
    registry: Registry,
    server: JoinHandle<std::io::Result<()>>,
    folder: TempDir,
}

/// Starts a registry that lets everybody do everything.
///
/// # Panics
/// When there is no port or no folder to be had.
pub async fn start() -> TestRegistry {
    start_with(Registry::builder()).await
}

/// Starts the registry that `builder` describes, over a folder of its own.
///
/// # Panics
/// When there is no port or no folder to be had.
pub async fn start_with(builder: Builder) -> TestRegistry {
    let folder = tempfile::tempdir().expect("a test can make a temporary folder");
    let registry = builder.open(folder.path()).await.expect("an empty folder opens");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let service = registry.router().into_make_service_with_connect_info::<SocketAddr>();
    let server = spawn(async move { axum::serve(listener, service).await });
    TestRegistry { address, registry, server, folder }
}

#[expect(clippy::disallowed_methods, reason = "the guard ends the server, not shutdown")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

impl TestRegistry {
    /// `host:port`, as it stands before a repository's name.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `http://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The registry itself.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Where its data is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}
