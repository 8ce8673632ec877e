//! `resolv.conf`, read as host-local reads it (`plugins/ipam/host-local/dns.go`).

use std::path::PathBuf;

/// The file that `ipam.resolvConf` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolvConf {
    /// Its path.
    pub path: PathBuf,
    /// The find of the caller there: its text, or why there is none. `None`: the caller did not
    /// look, since the path is that of a central object, or the caller is not the plugin.
    pub content: Option<Result<String, String>>,
}

/// The DNS part of a result.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Dns {
    /// `nameserver`: one per line.
    pub nameservers: Vec<String>,
    /// `domain`: the last one.
    pub domain: String,
    /// `search`: the domains of all lines.
    pub search: Vec<String>,
    /// `options`: those of all lines.
    pub options: Vec<String>,
}

impl Dns {
    /// True if it has no entry.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Parses the text of a `resolv.conf` as host-local does: unknown lines are skipped, values are
/// taken as they are, and a `#` later in a line does not start a comment.
pub fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut fields = line.split_whitespace();
        let (Some(key), Some(first)) = (fields.next(), fields.next()) else {
            continue;
        };
        let rest = fields.map(str::to_owned);
        match key {
            "nameserver" => dns.nameservers.push(first.to_owned()),
            "domain" => first.clone_into(&mut dns.domain),
            "search" => {
                dns.search.push(first.to_owned());
                dns.search.extend(rest);
            }
            "options" => {
                dns.options.push(first.to_owned());
                dns.options.extend(rest);
            }
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_host_local_reads_it() {
        let dns = parse(
            "# a comment\n; another\n\n  nameserver 192.0.2.1 ignored\r\nnameserver 192.0.2.2\n\
             nameserver\ndomain a.example\ndomain b.example\nsearch a b\nsearch c # d\n\
             options ndots:2\ttimeout:1\nNAMESERVER 192.0.2.3\nsortlist x",
        );
        assert_eq!(dns.nameservers, ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(dns.domain, "b.example");
        assert_eq!(dns.search, ["a", "b", "c", "#", "d"]);
        assert_eq!(dns.options, ["ndots:2", "timeout:1"]);
    }

    #[test]
    fn an_empty_one_says_nothing() {
        assert!(parse("").is_empty());
        assert!(parse("#\n;\n \n").is_empty());
        assert!(!parse("search a").is_empty());
    }
}
