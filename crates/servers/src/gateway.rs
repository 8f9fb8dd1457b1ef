use std::net::SocketAddr;

const CONFIGURATION: &str = include_str!("../../../nginx/nginx.conf");

/// The gateway's configuration, `nginx/nginx.conf`, for these edges. Its access log is `access.log` in NGINX's directory.
pub fn gateway_config(listen: SocketAddr, edges: &[SocketAddr]) -> String {
    assert!(!edges.is_empty(), "a gateway needs an edge");
    let here = format!("listen {listen} backlog=4096; access_log access.log json;");
    let servers: Vec<String> = edges.iter().map(|edge| format!("server {edge} max_fails=0;")).collect();
    put(&put(CONFIGURATION, "include here.conf;", &here), "include edges.conf;", &servers.join(" "))
}

fn put(text: &str, place: &str, filling: &str) -> String {
    assert_eq!(text.matches(place).count(), 1, "{place}");
    text.replace(place, filling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_its_address_and_every_edge() {
        let addr = |text: &str| text.parse().expect("an address");
        let text = gateway_config(addr("127.0.0.1:8080"), &[addr("127.0.0.1:8081"), addr("[::1]:8082")]);
        assert!(text.contains("listen 127.0.0.1:8080 "));
        assert!(text.contains("server 127.0.0.1:8081 max_fails=0; server [::1]:8082 max_fails=0;"));
        assert!(!text.contains("include"));
    }
}
