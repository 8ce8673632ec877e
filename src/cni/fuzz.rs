//! Random input: every input gives a request or an error object.

use proptest::prelude::*;

use super::args::Args;
use super::central::Nowhere;
use super::parse::{parse, split};
use super::vectors::{Call, with_ipam};

const IPAM: &str = r#"{"blockSize":28,"subnet":"10.1.9.0/24","rangeEnd":"10.1.9.20","routes":
    [{"dst":"0.0.0.0/0","gw":"10.1.2.1","mtu":1400}],"ranges":[[{"subnet":"10.1.2.0/24",
    "rangeStart":"10.1.2.9","gateway":"10.1.2.1","sandbox":["10.1.2.12"]}]]}"#;

fn bodies() -> impl Strategy<Value = String> {
    let commands = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"];
    let more = r#","prevResult":{"ips":[{"address":"10.1.2.2/24"}]},"args":{"cni":{"ips":
        ["10.1.2.7/24"],"stage":"sandbox"}},"runtimeConfig":{"ipRanges":[[{"subnet":
        "2001:db8::/64","rangeStart":"2001:db8::9"}]]},"cni.dev/attachments":[{}]"#;
    let whole = commands.map(|command| {
        Call { command, version: "1.1.0", more: more.into(), ..with_ipam(IPAM) }.body()
    });
    prop::sample::select(whole.to_vec())
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = split(&body, &Nowhere);
        let _ = Args::parse(&String::from_utf8_lossy(&body));
    }

    #[test]
    fn no_slip_makes_it_panic(
        body in bodies(),
        slips in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<u8>()), 1..6),
    ) {
        let mut body = body.into_bytes();
        for (at, how, byte) in slips {
            // Mutations before this one may have emptied the body.
            let at = at.index(body.len().max(1));
            let token: &[u8] = match byte % 8 {
                0 => b"null",
                1 => b"[]",
                2 => b"-1e300",
                3 => b"\"\"",
                4 => b"/128",
                5 => b"255",
                6 => b"\n",
                _ => b",",
            };
            match how {
                _ if body.is_empty() => body.push(byte),
                0 => body[at] = byte,
                1 => drop(body.remove(at)),
                2 => drop(body.splice(at..at, token.iter().copied())),
                _ => body.truncate(at.max(1)),
            }
        }
        if let Err(error) = parse(&body) {
            prop_assert!(error.code.number() < 10);
            let object: serde_json::Value = serde_json::from_str(&error.render())?;
            prop_assert!(!object["msg"].as_str().unwrap_or_default().is_empty());
        }
    }
}
