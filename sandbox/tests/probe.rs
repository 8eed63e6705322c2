//! What the machine gives, tried for real, and a process that enters what it has chosen.
//!
//! The test needs root; without it it prints why it is skipped.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use rustix::thread::CapabilitySet;
use sandbox::IsolationError;
use sandbox::tier::{Isolation, Probe, Tier, choose};

fn main() {
    let probe = Probe::new().unwrap();
    if !rustix::process::geteuid().is_root() || !probe.has(CapabilitySet::SYS_ADMIN) {
        println!("SKIP: needs root");
        return;
    }
    assert!(probe.is_initial_namespace());
    assert_eq!((probe.user().id, probe.user().shown().as_str()), (0, "root"));
    assert_eq!(probe.user_namespaces(), Ok(()));
    assert_eq!(probe.overlays(), Ok(()));
    assert_eq!(probe.proc_mounts(), Ok(()));

    let best = choose(Isolation::Auto, &probe).unwrap();
    assert_eq!((best.tier, best.reason.as_str()), (Some(Tier::Root), "root of the machine"));
    assert!(best.lacks.is_empty());

    // What is not entered leaves nothing behind.
    let unused = choose(Isolation::Only(Tier::SingleId), &probe).unwrap();
    drop(unused);
    let own = std::process::id();
    let children = fs_err::read_to_string(format!("/proc/self/task/{own}/children"));
    assert_eq!(children.unwrap_or_default(), "");

    let here = std::env::current_dir().unwrap();
    let mounts = fs_err::read_link("/proc/self/ns/mnt").unwrap();
    let mut one = choose(Isolation::Only(Tier::SingleId), &probe).unwrap();
    assert_eq!(one.reason, "asked for; user namespace with one id");
    one.enter().unwrap();
    assert_eq!(std::env::current_dir().unwrap(), here);
    assert_ne!(fs_err::read_link("/proc/self/ns/mnt").unwrap(), mounts);
    let map = fs_err::read_to_string("/proc/self/uid_map").unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "0", "1"]);

    // Whoever is started from here finds out by itself.
    let inside = Probe::new().unwrap();
    assert!(inside.has(CapabilitySet::SYS_ADMIN) && !inside.is_initial_namespace());
    let again = choose(Isolation::Auto, &inside).unwrap();
    assert_eq!(again.tier, Some(Tier::SingleId));
    assert_eq!(again.reason, "root of a user namespace with one id");
    let refused = choose(Isolation::Only(Tier::Root), &inside).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "isolation `root` is not possible here: this process is root of a user namespace, not of the machine"
    );
    let IsolationError::Missing { lack, .. } = refused else { panic!("{refused}") };
    assert_eq!(lack.lift, "run the command outside of that namespace");
    println!("test probe ... ok");
}
