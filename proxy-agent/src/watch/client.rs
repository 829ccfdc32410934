//! A client for the API server, from flags.
//!
//! Called by [`run`](crate::run) at start; [`kinds`](super::kinds) uses it.

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::config::KubeArgs;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file given by flag.
    #[error("--kubeconfig {path}: cannot be used")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// No flag, and not in a Pod.
    #[error("no API server: give --kubeconfig or --master, or run in a Pod with a service account")]
    Nowhere(#[source] kube::config::InferConfigError),
    /// The address given by flag.
    #[error("--master {0}: not an address")]
    Master(String),
    /// Certificates or keys that can't be used.
    #[error("the API server's certificates or the credentials cannot be used")]
    Client(#[source] kube::Error),
}

/// A client. Nothing is sent yet: an API server that is away is no error here.
///
/// # Errors
/// Flags or files that can't be used.
pub async fn connect(args: &KubeArgs) -> Result<Client, ClientError> {
    let mut config = base(args).await?;
    if let Some(master) = &args.master {
        config.cluster_url = master.parse().map_err(|_| ClientError::Master(master.clone()))?;
    }
    Client::try_from(config).map_err(ClientError::Client)
}

async fn base(args: &KubeArgs) -> Result<Config, ClientError> {
    if let Some(path) = &args.kubeconfig {
        let wrong = |source| ClientError::Kubeconfig {
            path: path.display().to_string(),
            source,
        };
        let file = Kubeconfig::read_from(path).map_err(wrong)?;
        return Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(wrong);
    }
    match (Config::infer().await, &args.master) {
        (Ok(config), _) => Ok(config),
        (Err(_), Some(master)) => master
            .parse()
            .map(Config::new)
            .map_err(|_| ClientError::Master(master.clone())),
        (Err(error), None) => Err(ClientError::Nowhere(error)),
    }
}
