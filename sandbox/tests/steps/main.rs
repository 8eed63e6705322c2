//! Steps, run for real.
//!
//! The tests need root; without it they print why they are skipped. The binary is its own zygote.
//! Arguments are parts of names of tests to run; `bench` measures instead.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod chroot;
mod ends;
mod fixture;
mod holds;
mod process;
mod rights;
mod tree;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A test and its name.
type Test = (&'static str, fn());

/// Lists functions with their names.
macro_rules! tests {
    ($($module:ident: $($name:ident),* $(,)?);* $(;)?) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), $module::$name)),*),*]
    };
}

const TESTS: &[Test] = tests! {
    process: ids_are_as_asked, environment_is_exact, name_and_session, standard_descriptors_only,
        output_opens_again_for_the_user, working_directory, program_lookup, limits, umask_is_022,
        signals_are_default;
    tree: standard_mounts, etc_files_are_read_only, layer_has_only_changes, device_nodes,
        bind_mounts, bind_source_stays_inside, racing_links_stay_inside, racing_targets_stay_inside, overlay_mounts,
        tmpfs_and_secrets,
        targets_are_made_inside_other_mounts, links_in_the_root_stay_inside, many_layers,
        too_many_layers, long_layer_paths, user_mount_replaces_standard, folder_as_root,
        missing_source_is_named, no_mount_is_left;
    rights: capabilities, user_has_none_effective, masked_paths, proc_sys_is_read_only,
        forbidden_calls, chroot_works, a_kept_directory_is_no_way_out, calls_of_i386, no_new_privs_is_off, insecure_step,
        network_none_has_loopback_only, own_executable_is_read_only,
        devices_of_the_machine_do_not_open;
    holds: calls_are_decided_as_the_profile_says, abstract_sockets_of_the_machine_are_out_of_reach,
        memory_of_a_step_is_limited, processes_of_a_step_are_limited, processors_of_a_step_are_limited,
        groups_of_dead_builders_are_removed;
    ends: exit_codes, background_processes_die, one_cannot_kill_itself, cancel_is_immediate,
        cancelled_before_the_start, many_at_once, zygote_death_is_an_error,
        builder_death_ends_steps;
    chroot: a_step_finds_its_tree_and_little_else, nothing_is_left_in_the_tree, exit_codes,
        what_is_left_running_dies, many_processes_die, cancel_is_immediate, keeper_death_ends_the_step,
        zygote_death_ends_the_step, builder_death_ends_the_step, nobody_gets_out, moved_folders_come_back,
        secrets_do_not_stay, links_in_the_tree_stay_inside, changed_files_of_the_builder_are_told,
        what_cannot_be_given_is_refused;
};

fn main() -> ExitCode {
    sandbox::maybe_run_zygote();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == ends::HANGING_BUILDER) {
        return ends::hanging_builder();
    }
    if arguments.first().is_some_and(|argument| argument == rights::OWN_MOUNT) {
        return rights::show_own_mount();
    }
    if arguments.first().is_some_and(|argument| argument == chroot::HANGING_BUILDER) {
        return chroot::hanging_builder();
    }
    if arguments.first().is_some_and(|argument| argument == chroot::ESCAPE) {
        return chroot::try_to_get_out(&arguments);
    }
    if arguments.first().is_some_and(|argument| argument == holds::CALL) {
        return holds::make_calls();
    }
    if let [first, name] = &arguments[..]
        && first == holds::CONNECT
    {
        return holds::connect(name);
    }
    if let [first, which] = &arguments[..]
        && first == rights::PROBE
    {
        return rights::try_calls(which);
    }
    if let Err(reason) = fixture::probe() {
        println!("SKIP: {reason}");
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "bench") {
        bench();
        fixture::clean_up();
        return ExitCode::SUCCESS;
    }
    let wanted = |name: &str| {
        let filters: Vec<_> = arguments.iter().filter(|part| !part.starts_with('-')).collect();
        filters.is_empty() || filters.iter().any(|part| name.contains(&***part))
    };
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    fixture::clean_up();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Measures what a step costs besides its program.
fn bench() {
    const ROUNDS: u32 = 100;
    for network in [sandbox::Network::Host, sandbox::Network::None] {
        // All folders are made before and removed after: file systems are slow to give inodes out
        // again that were just freed.
        let change = |spec: &mut sandbox::Spec| spec.network = network;
        let steps: Vec<_> =
            (0..ROUNDS).map(|_| fixture::Step::exec(&["/bin/true"]).with(change)).collect();
        let cancel = sandbox::Cancel::new().unwrap();
        let null = || fs_err::OpenOptions::new().write(true).open("/dev/null").unwrap();
        let time = |step: &fixture::Step| {
            let (stdout, stderr) = (null().into_parts().0.into(), null().into_parts().0.into());
            let begin = Instant::now();
            let exit = fixture::fixture().sandbox.run(&step.spec, stdout, stderr, &cancel);
            assert_eq!(exit.unwrap().code, 0);
            begin.elapsed()
        };
        let mut times: Vec<Duration> = steps.iter().map(time).collect();
        times.sort();
        println!(
            "network {network:?}: best {:?}, median {:?}, 90% {:?}",
            times[0],
            times[times.len() / 2],
            times[times.len() * 9 / 10]
        );
    }
}
