//! Keeps servers elsewhere from leading to this machine by a name: by its address alone they cannot, see
//! [`follow`](crate::transport::follow).

use std::io;
use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::options::is_private_address;

/// Looks up names, and passes over addresses that mean this machine.
#[derive(Debug)]
pub(crate) struct Guard;

/// That a name has no other addresses.
pub(crate) const MEANS_THIS_MACHINE: &str = "the name means this machine";

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found = elsewhere(found.collect())?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn elsewhere(mut found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    found.retain(|address| !is_private_address(address.ip()));
    if found.is_empty() {
        return Err(io::Error::other(MEANS_THIS_MACHINE));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_of_this_machine_are_not_followed() {
        let error = Guard.resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert_eq!(error.to_string(), MEANS_THIS_MACHINE);
        let all = ["127.0.0.1:0", "10.0.0.1:0", "[::ffff:127.0.0.1]:0", "169.254.169.254:0"];
        let all = all.map(|address| address.parse().unwrap());
        assert_eq!(elsewhere(all.to_vec()).unwrap(), [all[1]]);
    }
}
