//! `--resource`, and the older flags for the same limits: what each RUN step may use.

use sandbox::Resources;

use crate::args::BuildArgs;
use crate::commands::options::size;
use crate::report::{Exit, Failure};

const NAMES: [&str; 8] = [
    "memory",
    "memory-swap",
    "cpu-shares",
    "cpu-period",
    "cpu-quota",
    "cpuset-cpus",
    "cpuset-mems",
    "pids",
];

/// The limits that were asked for.
pub(crate) fn resources(args: &BuildArgs) -> Result<Resources, Failure> {
    let mut limits = Resources::default();
    let old = &args.limits;
    for (name, value) in [
        ("memory", &old.memory),
        ("memory-swap", &old.memory_swap),
        ("cpu-shares", &old.cpu_shares),
        ("cpu-period", &old.cpu_period),
        ("cpu-quota", &old.cpu_quota),
        ("cpuset-cpus", &old.cpuset_cpus),
        ("cpuset-mems", &old.cpuset_mems),
    ] {
        if let Some(value) = value {
            set(&mut limits, name, value)?;
        }
    }
    for text in &args.resources {
        // Lists of processors have commas of their own: what has no name goes on with the value before.
        let mut fields: Vec<String> = Vec::new();
        for field in text.split(',') {
            match fields.last_mut() {
                Some(before) if !field.contains('=') => {
                    before.push(',');
                    before.push_str(field);
                }
                _ => fields.push(field.to_owned()),
            }
        }
        for field in fields {
            let (name, value) = field
                .split_once('=')
                .ok_or_else(|| usage(format!("invalid resource `{field}`: want name=value")))?;
            set(&mut limits, name.trim(), value.trim())?;
        }
    }
    if let (Some(both), memory) = (limits.memory_swap, limits.memory)
        && both != -1
        && memory.is_none_or(|memory| u64::try_from(both).is_ok_and(|both| both < memory))
    {
        return Err(usage("memory-swap is memory and swap together: it needs a limit of memory, and cannot be below it".to_owned()));
    }
    Ok(limits)
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn set(limits: &mut Resources, name: &str, value: &str) -> Result<(), Failure> {
    let bytes = || {
        let bytes = size(value).ok().and_then(|bytes| u64::try_from(bytes).ok());
        bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
            usage(format!(
                "invalid value `{value}` of resource {name}: want a size above 0, such as 512m"
            ))
        })
    };
    let number = || {
        let number = value.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| {
            usage(format!("invalid value `{value}` of resource {name}: want a number above 0"))
        })
    };
    let list = || {
        let is_list = value.starts_with(|c: char| c.is_ascii_digit())
            && value.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '-'));
        is_list.then(|| value.to_owned()).ok_or_else(|| {
            usage(format!("invalid value `{value}` of resource {name}: want a list such as 0-2,4"))
        })
    };
    match name {
        "memory" => limits.memory = Some(bytes()?),
        "memory-swap" if value == "-1" => limits.memory_swap = Some(-1),
        "memory-swap" => limits.memory_swap = i64::try_from(bytes()?).ok(),
        "cpu-shares" => limits.cpu_shares = Some(number()?),
        "cpu-period" => limits.cpu_period = Some(number()?),
        "cpu-quota" => limits.cpu_quota = Some(number()?),
        "cpuset-cpus" => limits.cpuset_cpus = Some(list()?),
        "cpuset-mems" => limits.cpuset_mems = Some(list()?),
        "pids" => limits.pids = Some(number()?),
        _ => {
            let near = llb::suggest::nearest(name, NAMES);
            let failure = usage(format!("unknown resource \"{name}\""));
            return Err(failure.did_you_mean(near));
        }
    }
    Ok(())
}
