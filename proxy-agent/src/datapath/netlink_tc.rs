//! TC programs as filters of the `clsact` qdisc: what kernels below 6.6 have in place of TCX links.
//!
//! Called by [`links`](super::links) when the kernel knows no TCX, and by [`cleanup`](super::cleanup). A filter belongs to
//! its device and needs no pin; priority and handle are fixed, so that a restart replaces the program of the same filter
//! in one step.

use aya::programs::{
    TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
};
use tracing::{debug, info};

use super::{
    hooks::{self, Direction, TcHook},
    links::Device,
    load::{LoadError, Programs},
};

/// Before most filters: one that ends the walk must not hide Services.
const PRIORITY: u16 = 7;
/// Unlikely to be anybody else's.
const HANDLE: TcHandle = TcHandle::new(0x7761, 1);

/// Replaces the device's filter of that hook, or makes it.
///
/// # Errors
/// [`LoadError::Program`] with what the kernel said: below 6.6 this needs the modules `sch_ingress` and `cls_bpf`.
pub fn ensure(programs: &Programs, device: &Device, hook: TcHook) -> Result<(), LoadError> {
    let direction = attach_type(hook.direction);
    programs.with_classifier(hook.program, |program| {
        let present = SchedClassifierLink::attached(&device.name, direction, PRIORITY, HANDLE, None)
            .map_err(tc::TcError::IoError)?;
        let link = match program.attach_to_link(present) {
            Ok(link) => {
                debug!(program = hook.program, device = device.name, "filter replaced in place");
                link
            }
            Err(_) => {
                // The qdisc may be there already; if it can't be made, attaching says why.
                _ = tc::qdisc_add_clsact(&device.name);
                let options = NlOptions {
                    priority: PRIORITY,
                    handle: HANDLE,
                    classid: None,
                };
                let link = program.attach_with_options(&device.name, direction, TcAttachOptions::Netlink(options))?;
                info!(program = hook.program, device = device.name, "attached as a filter");
                link
            }
        };
        // Dropped, it would take the filter away with the agent; it holds no descriptor.
        std::mem::forget(program.take_link(link)?);
        Ok(())
    })
}

/// Removes our filters from a device; returns how many there were.
pub fn remove(device: &str) -> usize {
    let hooks = hooks::UPLINK.iter().chain(&hooks::POD_DEVICE);
    hooks
        .filter(|hook| tc::qdisc_detach_program(device, attach_type(hook.direction), hook.program).is_ok())
        .count()
}

fn attach_type(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}
