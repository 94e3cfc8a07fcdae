// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the tests of the whole product stand on: a real Kubernetes, a real Postgres, a real S3 server, clients that
//! write down what they see, and a judge of that.
//!
//! [`on_cluster`] gives a test a running [`Cluster`]. Everything of it lives in a network namespace, a mount
//! namespace and a cgroup of its own, so several run side by side and nothing listens on the machine.
//! Guarantees: it is taken down when the test process ends, however it ends; no process, namespace, mount or cgroup stays.
//! Never: uses an image, a binary or a server that the repository does not pin or build.

mod cgroup;
mod cluster;
mod control_plane;
mod files;
mod forward;
pub mod history;
mod image;
mod lifecycle;
pub mod load;
mod network;
mod node;
mod pki;
mod port;
mod process;
mod product;
mod services;
mod soak;
mod state;
mod tools;
mod wait;

pub use cluster::{Cluster, on_cluster};
pub use forward::forward;
pub use image::Image;
pub use lifecycle::{down, open_door, up};
pub use network::{NODE_ADDRESS, within};
pub use port::free_port;
pub use process::{command, succeed};
pub use product::{Sample, install, publish_product};
pub use services::{Distribution, Postgres, S3};
pub use soak::soak_length;
pub use state::State;
pub use tools::{binary, repository, tool, tools_folder};
pub use wait::until;
