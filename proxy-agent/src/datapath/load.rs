//! Loads the BPF object: its maps are made with the sizes asked for, or adopted from their pins, and its programs pass
//! the verifier. Called by [`start`](super::start); [`links`](super::links) attaches what this returns.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{Program, ProgramError, SchedClassifier},
};
use proxy_ebpf::abi::{self, maps as specs};
use tracing::{debug, info, warn};

use super::{
    bpf::{self, MapInfo},
    pins::Pins,
};
use crate::config::SizeArgs;

/// File name of the object, looked for beside the executable.
const OBJECT_NAME: &str = "proxy-ebpf.o";
/// Where packages install the object.
const INSTALLED: &str = "/usr/lib/waggle/proxy-ebpf.o";

/// The iterator that lists counted sockets; the only program that may be missing on a kernel.
pub const RECOUNT: &str = "recount";

/// Why the object could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no object.
    #[error("no BPF object at {}: build one with `cargo xtask build-ebpf` and name it with --object", .0.display())]
    NoObject(PathBuf),
    /// The object can't be read, or the kernel refused its maps.
    #[error("the BPF object {} can't be loaded", .path.display())]
    Object {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// The object lacks a program this agent attaches.
    #[error("the BPF object has no program {0}: it was built from another version")]
    Missing(&'static str),
    /// The kernel refused a program.
    #[error("the kernel refused program {program}")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// What the loader said; the verifier's log is in it.
        #[source]
        source: Box<ProgramError>,
    },
    /// A pinned map is not what its name says.
    #[error("the pinned map {} has {found}, not {expected}: remove it with `proxy-agent cleanup`", .path.display())]
    Layout {
        /// The pin.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What it should have.
        expected: String,
    },
    /// A pinned map could not be looked at.
    #[error("the pinned map {} can't be opened", .path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// The loaded programs by name.
pub struct Programs {
    descriptors: HashMap<&'static str, OwnedFd>,
    /// Kept for kernels below 6.6 only, where the library attaches TC programs by netlink.
    object: Mutex<Ebpf>,
}

impl Programs {
    /// A program's descriptor.
    ///
    /// # Errors
    /// [`LoadError::Missing`] if the kernel has no use for it ([`RECOUNT`] only).
    pub fn get(&self, name: &'static str) -> Result<BorrowedFd<'_>, LoadError> {
        self.descriptors
            .get(name)
            .map(AsFd::as_fd)
            .ok_or(LoadError::Missing(name))
    }

    /// Lets `attach` use a TC program through the library.
    ///
    /// # Errors
    /// [`LoadError`] if there is no such program, and what `attach` returns.
    pub fn with_classifier<T>(
        &self,
        name: &'static str,
        attach: impl FnOnce(&mut SchedClassifier) -> Result<T, ProgramError>,
    ) -> Result<T, LoadError> {
        let mut object = self.lock();
        let program = object.program_mut(name).ok_or(LoadError::Missing(name))?;
        let refused = |source| LoadError::Program {
            program: name,
            source: Box::new(source),
        };
        let classifier: &mut SchedClassifier = program.try_into().map_err(refused)?;
        attach(classifier).map_err(refused)
    }

    fn lock(&self) -> MutexGuard<'_, Ebpf> {
        self.object.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The object to load: the one asked for, else the one beside the executable or built with it, else the installed one.
///
/// # Errors
/// [`LoadError::NoObject`].
pub fn find_object(asked: Option<&Path>) -> Result<PathBuf, LoadError> {
    if let Some(path) = asked {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(LoadError::NoObject(path.to_owned()))
        };
    }
    let exe = std::env::current_exe().unwrap_or_default();
    let directory = exe.parent();
    // `cargo xtask build-ebpf` puts it into target/bpf, cargo the executable into target/debug or target/release.
    let built = directory.and_then(Path::parent).map(|target| target.join("bpf"));
    let beside = directory.map(Path::to_owned).into_iter().chain(built);
    let mut candidates = beside
        .map(|directory| directory.join(OBJECT_NAME))
        .chain([INSTALLED.into()]);
    candidates
        .find(|path| path.is_file())
        .ok_or_else(|| LoadError::NoObject(INSTALLED.into()))
}

/// Loads the object at `path` over the maps pinned below `pins`, making those that are missing, and then `programs`.
/// Nothing is attached yet.
///
/// # Errors
/// [`LoadError`].
pub fn load(path: &Path, pins: &Pins, sizes: &SizeArgs, programs: &[&'static str]) -> Result<Programs, LoadError> {
    let bytes = std::fs::read(path).map_err(|_| LoadError::NoObject(path.to_owned()))?;
    let mut loader = EbpfLoader::new();
    for spec in specs::ALL {
        let asked = sizes.of(spec.name).unwrap_or(spec.max_entries);
        let size = adopted_size(pins, spec.name, asked)?.unwrap_or(asked);
        if size > 0 {
            loader.map_max_entries(spec.name, size);
        }
        loader.map_pin_path(spec.name, pins.map(spec.name));
    }
    loader.allow_unsupported_maps();
    let refused = |source| LoadError::Object {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let mut object = loader.load(&bytes).map_err(refused)?;

    let mut descriptors = HashMap::new();
    for &name in programs {
        let program = object.program_mut(name).ok_or(LoadError::Missing(name))?;
        let began = Instant::now();
        match load_program(program) {
            Ok(descriptor) => {
                debug!(program = name, took = ?began.elapsed(), "verified");
                descriptors.insert(name, descriptor);
            }
            Err(error) if name == RECOUNT => {
                warn!(%error, "sockets can't be recounted: counts that drift stay until the agent's maps are made anew");
            }
            Err(source) => {
                return Err(LoadError::Program {
                    program: name,
                    source: Box::new(source),
                });
            }
        }
    }
    info!(object = %path.display(), programs = descriptors.len(), "loaded");
    Ok(Programs {
        descriptors,
        object: Mutex::new(object),
    })
}

fn load_program(program: &mut Program) -> Result<OwnedFd, ProgramError> {
    match program {
        Program::Xdp(program) => program.load()?,
        Program::SchedClassifier(program) => program.load()?,
        Program::CgroupSockAddr(program) => program.load()?,
        Program::CgroupSock(program) => program.load()?,
        Program::SockOps(program) => program.load()?,
        Program::Iter(program) => program.load("bpf_sk_storage_map", &Btf::from_sys_fs()?)?,
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

/// The size of a map that is pinned already, once it is clear that it is the map we mean.
fn adopted_size(pins: &Pins, name: &'static str, asked: u32) -> Result<Option<u32>, LoadError> {
    let path = pins.map(name);
    let found = match bpf::open_pinned(&path).and_then(|fd| bpf::map_info(fd.as_fd())) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LoadError::Pin { path, source }),
    };
    let expected = layout(name);
    if (found.kind, found.key_size, found.value_size) != expected {
        let expected = MapInfo {
            kind: expected.0,
            key_size: expected.1,
            value_size: expected.2,
            ..found
        };
        return Err(LoadError::Layout {
            path,
            found: describe(&found),
            expected: describe(&expected),
        });
    }
    if found.max_entries != asked {
        warn!(
            map = name,
            has = found.max_entries,
            asked,
            "the pinned map keeps its size; `proxy-agent cleanup` and a new start give it the size asked for, and lose its flows"
        );
    }
    Ok(Some(found.max_entries))
}

fn describe(map: &MapInfo) -> String {
    format!(
        "type {}, keys of {} and values of {} bytes",
        map.kind, map.key_size, map.value_size
    )
}

/// Type (`enum bpf_map_type`), key size and value size of a map.
fn layout(name: &str) -> (u32, u32, u32) {
    const HASH: u32 = bpf::TYPE_HASH;
    const ARRAY: u32 = bpf::TYPE_ARRAY;
    const PER_CPU_ARRAY: u32 = 6;
    const LRU_HASH: u32 = 9;
    const SOCKET_STORAGE: u32 = 24;
    fn of<K, V>(kind: u32) -> (u32, u32, u32) {
        let size = |bytes: usize| u32::try_from(bytes).expect("a few hundred bytes");
        (kind, size(size_of::<K>()), size(size_of::<V>()))
    }
    match name {
        "FRONTENDS" => of::<abi::FrontendKey, abi::Frontend>(HASH),
        "OWNED_ADDRS" => of::<abi::Addr, u32>(HASH),
        "SERVICES" => of::<u32, abi::Service>(ARRAY),
        "SLOTS" => of::<u32, abi::BackendId>(ARRAY),
        "BACKENDS" => of::<u32, abi::Backend>(ARRAY),
        "CURSORS" => of::<u32, u64>(ARRAY),
        "BACKEND_LOADS" => of::<u32, abi::BackendLoad>(ARRAY),
        "BACKEND_EXPIRED" => of::<u32, abi::BackendExpired>(ARRAY),
        "CONNTRACK" | "HALF_OPEN" => of::<abi::FlowKey, abi::FlowEntry>(LRU_HASH),
        "AFFINITY" => of::<abi::AffinityKey, abi::Affinity>(LRU_HASH),
        "SOCKETS" => of::<u32, abi::SocketState>(SOCKET_STORAGE),
        "POD_ADDRS" => of::<u64, abi::PodAddrs>(HASH),
        "NODE_CONFIG" => of::<u32, abi::NodeConfig>(ARRAY),
        "REASON_COUNTERS" => of::<u32, abi::ReasonCounters>(PER_CPU_ARRAY),
        "SERVICE_COUNTERS" => of::<u32, abi::ServiceCounters>(PER_CPU_ARRAY),
        other => unreachable!("map {other} is not in the table of maps"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_has_a_layout() {
        for spec in specs::ALL {
            let (kind, key, value) = layout(spec.name);
            assert!(kind > 0 && key > 0 && value > 0, "{}", spec.name);
        }
    }

    #[test]
    fn an_object_that_was_asked_for_is_never_replaced_by_another() {
        let missing = Path::new("/nonexistent/object.o");
        assert!(matches!(find_object(Some(missing)), Err(LoadError::NoObject(path)) if path == missing));
    }
}
