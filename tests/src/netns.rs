//! Network namespaces, named in `/run/netns` so that `ip -n` and `ip netns exec` work on them too.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::scope::Scope;

/// A network namespace of a lab. It lives as long as the lab's [`Scope`].
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with its loopback up.
    ///
    /// # Errors
    /// If the kernel refuses, or the name is taken.
    pub fn new(scope: &Scope, name: &str) -> Result<Self> {
        let netns = Self {
            name: scope.netns_name(name),
        };
        fs::create_dir_all("/run/netns")?;
        let path = netns.path();
        File::create_new(&path).with_context(|| format!("can't create {}", path.display()))?;
        // unshare changes the calling thread only, so a thread of its own makes the namespace and then ends.
        let made = std::thread::spawn(move || -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
            Ok(())
        });
        made.join()
            .expect("the thread doesn't panic")
            .with_context(|| format!("can't make namespace {}", netns.name))?;
        Ok(netns)
    }

    /// Its name in `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs a closure in a thread that is in this namespace.
    ///
    /// # Errors
    /// If the namespace can't be entered, or what the closure returns.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let path = self.path();
        let inside = std::thread::spawn(move || {
            let file = File::open(&path).with_context(|| format!("can't open {}", path.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        match inside.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Sets sysctls (`net.`-paths with slashes) in this namespace.
    ///
    /// # Errors
    /// Names the one that could not be set.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        let settings: Vec<(String, String)> = settings
            .iter()
            .map(|(path, value)| ((*path).to_owned(), (*value).to_owned()))
            .collect();
        self.run(move || {
            for (path, value) in settings {
                fs::write(format!("/proc/sys/net/{path}"), &value)
                    .with_context(|| format!("sysctl net/{path}={value}"))?;
            }
            Ok(())
        })
    }
}
