//! Limits, and the files of control groups that they are written to.

/// What a step may use; what is not set is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// Memory and swap together, in bytes; -1 is no limit.
    pub memory_swap: Option<i64>,
    /// Weight against others that want the processors; 1024 is that of who has none.
    pub cpu_shares: Option<u64>,
    /// Length of the periods that the quota is for, in microseconds.
    pub cpu_period: Option<u64>,
    /// Time on processors in each period, in microseconds.
    pub cpu_quota: Option<u64>,
    /// Processors, as a list such as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as a list.
    pub cpuset_mems: Option<String>,
    /// Processes and threads at the same time.
    pub pids: Option<u64>,
}

/// A kind of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// A tree per controller.
    One,
    /// One tree.
    Two,
}

impl Version {
    /// File of a memory group that has a line `oom_kill COUNT`.
    pub(super) fn memory_events(self) -> &'static str {
        match self {
            Self::One => "memory.oom_control",
            Self::Two => "memory.events",
        }
    }
}

/// Something that control groups limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Cpuset,
    Pids,
}

impl Controller {
    pub(super) const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Cpuset, Self::Pids];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Pids => "pids",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|controller| controller.name() == name)
    }
}

type Files = Vec<(&'static str, String)>;

impl Resources {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The controllers that the limits need.
    pub(super) fn controllers(&self) -> Vec<Controller> {
        let needs = |controller: &Controller| match controller {
            Controller::Memory => self.memory.is_some() || self.memory_swap.is_some(),
            Controller::Cpu => {
                self.cpu_shares.is_some() || self.cpu_period.is_some() || self.cpu_quota.is_some()
            }
            Controller::Cpuset => self.cpuset_cpus.is_some() || self.cpuset_mems.is_some(),
            Controller::Pids => self.pids.is_some(),
        };
        Controller::ALL.into_iter().filter(needs).collect()
    }

    /// Files of a controller and what is to be written to them, in order.
    pub(super) fn files(&self, controller: Controller, version: Version) -> Files {
        match (controller, version) {
            (Controller::Memory, Version::One) => self.memory_v1(),
            (Controller::Memory, Version::Two) => self.memory_v2(),
            (Controller::Cpu, Version::One) => self.cpu_v1(),
            (Controller::Cpu, Version::Two) => self.cpu_v2(),
            (Controller::Cpuset, _) => {
                let rows = [("cpuset.cpus", &self.cpuset_cpus), ("cpuset.mems", &self.cpuset_mems)];
                rows.into_iter().filter_map(|(file, list)| Some((file, list.clone()?))).collect()
            }
            (Controller::Pids, _) => {
                self.pids.iter().map(|pids| ("pids.max", pids.to_string())).collect()
            }
        }
    }

    fn memory_v1(&self) -> Files {
        let memory = self.memory.map(|bytes| ("memory.limit_in_bytes", bytes.to_string()));
        let both = self.memory_swap.map(|bytes| ("memory.memsw.limit_in_bytes", bytes.to_string()));
        memory.into_iter().chain(both).collect()
    }

    /// Swap is counted by itself here.
    fn memory_v2(&self) -> Files {
        let memory = self.memory.map(|bytes| ("memory.max", bytes.to_string()));
        let swap = self.memory_swap.map(|both| match u64::try_from(both) {
            Ok(both) => both.saturating_sub(self.memory.unwrap_or(0)).to_string(),
            Err(_) => "max".to_owned(),
        });
        memory.into_iter().chain(swap.map(|swap| ("memory.swap.max", swap))).collect()
    }

    fn cpu_v1(&self) -> Files {
        let rows = [
            ("cpu.shares", self.cpu_shares),
            ("cpu.cfs_period_us", self.cpu_period),
            ("cpu.cfs_quota_us", self.cpu_quota),
        ];
        rows.into_iter().filter_map(|(file, value)| Some((file, value?.to_string()))).collect()
    }

    /// Weights go from 1 to 10000, shares from 2 to 262144.
    fn cpu_v2(&self) -> Files {
        let weight = |shares: u64| 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        let weight = self.cpu_shares.map(|shares| ("cpu.weight", weight(shares).to_string()));
        let quota = self.cpu_quota.map_or("max".to_owned(), |quota| quota.to_string());
        let most = match self.cpu_period {
            Some(period) => Some(format!("{quota} {period}")),
            None => self.cpu_quota.map(|_| quota),
        };
        weight.into_iter().chain(most.map(|most| ("cpu.max", most))).collect()
    }
}
