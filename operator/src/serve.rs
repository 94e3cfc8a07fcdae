// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The process in a cluster: probes first, then the lease, then the controllers.
//!
//! Guarantees: a standby starts no controller and is ready. A lease that is lost ends the process with a failure, so
//! that nothing acts on what it believed before. SIGTERM finishes the attempts under way and releases the lease.

use std::{sync::Arc, time::Duration};

use kube::Client;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::{error, info};

use crate::{
    cli::RunArgs,
    controllers::{
        registry::validate::Settings,
        run::{Start, StartError, check_established, run},
    },
    lease::{Elector, Lost},
    ops::{
        clock,
        server::{Ops, serve},
        tasks::Tasks,
    },
};

const GRACE: Duration = Duration::from_secs(20);
const DEFAULT_NAMESPACE: &str = "stowage-system";

/// Why the process ends with a failure.
#[derive(Debug, Error)]
pub enum ServeError {
    /// There is no way to the API server.
    #[error("the API server cannot be reached: give a kubeconfig, or run in a cluster")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The operations port is taken.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("receive signals")]
    Signals(#[source] std::io::Error),
    /// The cluster is not prepared.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Somebody else leads.
    #[error("{0}: another operator goes on")]
    Lost(Lost),
    /// A part of the process ended by itself.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs until a signal.
pub async fn operate(args: RunArgs) -> Result<(), ServeError> {
    let client = Client::try_default().await.map_err(|error| ServeError::Client(error.into()))?;
    let listener = TcpListener::bind(args.ops_listen)
        .await
        .map_err(|source| ServeError::Listen { address: args.ops_listen, source })?;
    let mut terminated = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;

    let ops = Ops::default();
    let mut tasks = Tasks::default();
    tasks.spawn("operations port", serve(listener, ops.clone(), tasks.shutdown()));
    let ended = tokio::select! {
        ended = lead(args, client, ops, &mut tasks) => ended,
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
    };
    info!("shutting down");
    tasks.end(GRACE).await;
    ended
}

/// Waits for the lease, acts while it is held. Dropped on a signal, after which the tasks are told to end.
async fn lead(args: RunArgs, client: Client, ops: Ops, tasks: &mut Tasks) -> Result<(), ServeError> {
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| DEFAULT_NAMESPACE.to_owned());
    let instance = std::env::var("POD_NAME").unwrap_or_else(|_| "stowage-operator".to_owned());
    check_established(&client, &args.watch_namespaces).await?;
    ops.readiness.set("definitions", true);
    ops.metrics.leads(false);

    let (lost_sender, lost) = tokio::sync::oneshot::channel();
    if args.leader_elect {
        let identity = format!("{instance}_{:08x}", rand::random::<u32>());
        let mut elector = Elector::new(client.clone(), &namespace, identity, clock::now);
        elector.acquire().await;
        let ending = tasks.shutdown();
        tasks.spawn("lease", async move {
            tokio::select! {
                why = elector.hold() => drop(lost_sender.send(why)),
                () = ending.begun() => elector.release().await,
            }
        });
    } else {
        tasks.spawn("lease", {
            let ending = tasks.shutdown();
            async move {
                ending.begun().await;
                drop(lost_sender);
            }
        });
    }
    ops.metrics.leads(true);
    ops.readiness.set("caches", false);
    let start = Start {
        client,
        settings: Settings { registry_image: args.registry_image, operator_namespace: namespace },
        namespaces: args.watch_namespaces,
        instance,
        metrics: Arc::clone(&ops.metrics),
        readiness: Arc::clone(&ops.readiness),
        now: clock::now,
    };
    info!(version = crate::release::VERSION, "controllers start");
    tasks.spawn("controllers", run(start, tasks.shutdown()));
    // The reason first: the task that sends it ends right after.
    tokio::select! {
        biased;
        Ok(why) = lost => {
            error!(%why, "lease lost");
            Err(ServeError::Lost(why))
        }
        ended = tasks.first_end() => Err(ServeError::Ended(ended.unwrap_or("everything"))),
    }
}
