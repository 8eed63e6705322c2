//! Image references: `[host[:port]/]path[:tag][@digest]`.
