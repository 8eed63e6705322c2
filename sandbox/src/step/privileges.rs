//! Gives up the rights that a step does not have.
//!
//! Between [`restrict`] and [`settle`] the process has the ids of the step but still holds the
//! builder's capabilities, because loading a seccomp filter without `no_new_privs` needs one.

use rustix::fs::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{During, Outcome};
use crate::spec::{Security, Spec};
use crate::tier::Tier;

/// Bounds what can ever be held to `keep`, and takes the ids of the step on.
pub(crate) fn restrict(spec: &Spec, keep: CapabilitySet, held: CapabilitySet) -> Outcome<()> {
    // The first number that the kernel does not know ends the list.
    let known = (0..u64::BITS)
        .map(|number| CapabilitySet::from_bits_retain(1 << number))
        .take_while(|capability| capability_is_in_bounding_set(*capability).is_ok());
    for capability in known.filter(|capability| !keep.contains(*capability)) {
        remove_capability_from_bounding_set(capability).during(|| "bound the capabilities")?;
    }
    clear_ambient_capability_set().during(|| "clear the ambient capabilities")?;

    if spec.tier == Tier::SingleId {
        // There is nobody else to become: who the process is said to be is the recorder's.
        return Ok(());
    }
    let groups: Vec<Gid> = spec.user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (uid, gid) = (Uid::from_raw(spec.user.uid), Gid::from_raw(spec.user.gid));
    set_keep_capabilities(true).during(|| "keep capabilities over the change of user")?;
    set_thread_groups(&groups).during(|| "set the supplementary groups")?;
    set_thread_res_gid(gid, gid, gid).during(|| format!("become group {}", spec.user.gid))?;
    set_thread_res_uid(uid, uid, uid).during(|| format!("become user {}", spec.user.uid))?;
    set_keep_capabilities(false).during(|| "keep capabilities no longer")?;
    let all =
        CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() };
    set_capabilities(None, all).during(|| "raise capabilities again")
}

/// Keeps `keep` only. A confined step that is not root keeps none; where there is one id every step is root's.
pub(crate) fn settle(spec: &Spec, keep: CapabilitySet) -> Outcome<()> {
    let insecure = spec.security == Security::Insecure;
    let is_root = spec.user.uid == 0 || spec.tier == Tier::SingleId;
    let keep = if insecure || is_root { keep } else { CapabilitySet::empty() };
    let inheritable = if insecure { keep } else { CapabilitySet::empty() };
    set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable })
        .during(|| "drop capabilities")?;
    if insecure {
        for capability in keep.iter() {
            configure_capability_in_ambient_set(capability, true)
                .during(|| "raise ambient capabilities")?;
        }
    }
    Ok(())
}
