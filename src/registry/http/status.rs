use http::Response;

use super::{Asked, Body, Desk, negotiate, respond};
use crate::{monitor::PeerView, registry::render::Encoding};

impl Desk {
    /// How the server is, as far as it can say, and which peers it has: a Java server tells of its machine's memory and of itself as an instance.
    pub(super) fn status(&self, asked: &Asked<'_>) -> Response<Body> {
        let encoding = negotiate::of_instance(&asked.head.headers).unwrap_or(Encoding::Xml);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let up = self.clock.now().since(self.clock.began()).as_secs();
        let (days, hours, minutes) = (up / 86_400, up / 3600 % 24, up / 60 % 60);
        let up =
            if days > 0 { format!("{days} days {hours:02}:{minutes:02}") } else { format!("{hours:02}:{minutes:02}") };
        let peers = self.peers.views();
        let named = |which: fn(&PeerView) -> bool| {
            peers.iter().filter(|peer| which(peer)).fold(String::new(), |names, peer| names + &peer.url + ",")
        };
        let registered = named(|_| true);
        let available = named(|peer| peer.reachable_for.is_some());
        let unavailable = named(|peer| peer.failing_for.is_some());
        let written = match encoding {
            Encoding::Xml => {
                let [registered, available, unavailable] =
                    [registered, available, unavailable].map(|names| names.replace('&', "&amp;").replace('<', "&lt;"));
                format!(
                    "<com.netflix.eureka.util.StatusInfo>\n  <generalStats>\n    <num-of-cpus>{cpus}</num-of-cpus>\n    \
                     <server-uptime>{up}</server-uptime>\n  </generalStats>\n  <applicationStats>\n    \
                     <registered-replicas>{registered}</registered-replicas>\n    \
                     <available-replicas>{available}</available-replicas>\n    \
                     <unavailable-replicas>{unavailable}</unavailable-replicas>\n  </applicationStats>\n\
                     </com.netflix.eureka.util.StatusInfo>"
                )
            }
            Encoding::Json => serde_json::json!({
                "generalStats": { "num-of-cpus": cpus.to_string(), "server-uptime": up },
                "applicationStats": {
                    "registered-replicas": registered,
                    "available-replicas": available,
                    "unavailable-replicas": unavailable,
                },
            })
            .to_string(),
        };
        respond::of_instance(written.into(), encoding)
    }
}
