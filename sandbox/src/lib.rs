//! Runs one process in a root file system under namespaces, mounts and limits.
