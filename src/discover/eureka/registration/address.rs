//! Where others find us, if we are not told.

use std::net::{IpAddr, Ipv4Addr};

use if_addrs::Interface;

/// This machine's name, as the system has it; no name server is asked.
pub(super) fn host_name() -> Option<String> {
    let name = gethostname::gethostname().to_string_lossy().trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// The address of this machine that others most likely reach. Nothing is sent anywhere to find it.
pub(super) fn ip_address() -> IpAddr {
    choose(if_addrs::get_if_addrs().unwrap_or_default())
}

/// Of those of interfaces that are up, neither loopback nor link-local: IPv4 before IPv6, then that of the interface which the system numbers lowest.
fn choose(mut interfaces: Vec<Interface>) -> IpAddr {
    interfaces.retain(|interface| interface.is_oper_up() && !interface.is_loopback() && !interface.is_link_local());
    interfaces.sort_by_key(|interface| (interface.ip().is_ipv6(), interface.is_p2p(), interface.index));
    interfaces.first().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), Interface::ip)
}

#[cfg(test)]
mod tests {
    use if_addrs::{IfAddr, IfOperStatus, Ifv4Addr, Ifv6Addr};

    use super::*;

    fn interface(index: u32, ip: &str, up: bool) -> Interface {
        let addr = match ip.parse().unwrap() {
            IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr { ip, netmask: Ipv4Addr::BROADCAST, prefixlen: 32, broadcast: None }),
            IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr { ip, netmask: ip, prefixlen: 128, broadcast: None }),
        };
        Interface {
            name: format!("eth{index}"),
            addr,
            index: Some(index),
            oper_status: if up { IfOperStatus::Up } else { IfOperStatus::Down },
            is_p2p: false,
        }
    }

    #[test]
    fn an_address_that_others_can_reach_is_chosen_without_asking_anybody() {
        let all = [
            interface(1, "127.0.0.1", true),
            interface(2, "2001:db8::2", true),
            interface(3, "169.254.1.1", true),
            interface(4, "10.0.0.4", false),
            interface(6, "10.0.0.6", true),
            interface(5, "10.0.0.5", true),
        ];
        assert_eq!(choose(all.to_vec()), "10.0.0.5".parse::<IpAddr>().unwrap());
        assert_eq!(choose(all[..4].to_vec()), "2001:db8::2".parse::<IpAddr>().unwrap());
        assert_eq!(choose(all[..1].to_vec()), "127.0.0.1".parse::<IpAddr>().unwrap());
    }
}
