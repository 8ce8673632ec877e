//! Compares what the page shows with what the daemons say, by mouse, while things change.

use serde_json::{Value, json};

use super::{Browser, keep_picture, open, place_of, set_of, text};
use crate::cluster::{network, nodes};
use crate::common::etcd::Cluster;
use crate::common::{Call, Daemon, Outcome, poll};

/// The containers of each node.
const HELD: [usize; 3] = [40, 10, 2];

fn pods() -> Value {
    network("pods", &json!({ "subnet": "10.64.0.0/22" }))
}

fn add(daemon: &Daemon, name: &str, config: &Value) -> Outcome {
    let container = format!("{name}-container");
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}");
    daemon.client().call(&Call { args, ..Call::new("ADD", &container, config) })
}

/// Three daemons with containers, once the records of all of them are in the store.
fn cluster(etcd: &Cluster) -> Vec<Daemon> {
    let daemons = nodes(etcd, 3, &["--listen-details"]);
    for (at, (daemon, count)) in daemons.iter().zip(HELD).enumerate() {
        for number in 0..count {
            add(daemon, &format!("cart-{at}-{number}"), &pods()).expect_result();
        }
    }
    for config in [
        network("six", &json!({ "subnet": "fd00:64::/64" })),
        network("large", &json!({ "subnet": "10.0.0.0/8", "rangeStart": "10.128.0.0" })),
    ] {
        add(&daemons[1], "odd", &config).expect_result();
    }
    let used = || set_of(&daemons[0].client().get("/v1/map"), "pods")["used"].as_u64();
    let all = HELD.iter().sum::<usize>() as u64;
    assert!(poll(super::browser::PATIENCE, || used() == Some(all)), "{:?}", used());
    daemons
}

#[test]
fn the_page_shows_what_the_api_says() {
    let etcd = Cluster::start(1);
    let daemons = cluster(&etcd);
    let (listen, mut client) = (daemons[0].listen().to_string(), daemons[0].client());
    let mut browser = Browser::start();
    open(&mut browser, &daemons[0]);
    keep_picture(&mut browser, "overview");
    figures_agree(&mut browser, &daemons[0]);
    let map = client.get("/v1/map");
    let set = set_of(&map, "pods");
    let busiest = |block: &&Value| block[3].as_u64();
    let block = set["blocks"].as_array().expect("blocks").iter().max_by_key(busiest);
    let block = block.expect("a block");
    let (prefix, owner) = (block[0].as_str().expect("a prefix"), &block[1]);
    browser.click("#sets button[data-name^='pods']");
    let place = place_of(&mut browser, prefix);
    browser.click_at(&place[0], &place[1]);
    browser.until("document.querySelectorAll('#block .held li').length > 0");
    assert_eq!(text(&mut browser, "#block-prefix"), prefix);
    let owner = &map["nodes"][usize::try_from(owner.as_u64().expect("a place")).expect("small")];
    assert_eq!(text(&mut browser, "#block-owner"), owner["node"].as_str().expect("a name"));
    let shown = browser.ask(
        "[...document.querySelectorAll('#block .held li')].map((row) => \
         ['span.mono', 'small.mono'].map((part) => row.querySelector(part).textContent))",
    );
    let rows = client.get(&format!("/v1/records?pool=pods&block={prefix}"));
    let row = |row: &Value| {
        json!([row["address"], format!("{} eth0", row["containerId"].as_str().unwrap_or_default())])
    };
    let rows: Vec<Value> = rows.as_array().expect("rows").iter().map(row).collect();
    assert!(!rows.is_empty());
    assert_eq!(shown, Value::Array(rows), "the containers of {prefix}");
    keep_picture(&mut browser, "block");
    the_map_of_owners_zooms(&mut browser, prefix);
    // The page asks for nothing but its own parts and reads.
    let own =
        |path: &String| path.is_empty() || path.starts_with("page/") || path.starts_with("v1/");
    assert!(browser.requests().iter().all(own), "{:?}", browser.requests());
    assert_eq!(browser.complaints(&listen), [""; 0]);
}

/// The figures of each range set are those of `leasehold networks`, and those of each node are
/// those of its own daemon.
fn figures_agree(browser: &mut Browser, daemon: &Daemon) {
    let pools = daemon.client().get("/v1/pools");
    let held = |network: &str| {
        let rows = pools.as_array().expect("pools").iter();
        rows.filter(|row| row["network"] == network).map(|row| row["used"].as_u64()).next()
    };
    assert_eq!(held("pods").flatten(), Some(HELD.iter().sum::<usize>() as u64), "{pools}");
    for (network, used) in [("pods", HELD.iter().sum()), ("six", 1), ("large", 1)] {
        browser.click(&format!("#sets button[data-name^='{network},']"));
        browser.until(&format!("document.getElementById('title').textContent === {network:?}"));
        let shown = text(browser, "[data-figure='Held']");
        assert!(shown.starts_with(&format!("{used} of ")), "{network}: {shown}");
    }
    browser.click("#sets button[data-name^='pods,']");
    let rows = browser.ask(
        "[...document.querySelectorAll('#nodes tbody tr')].map((row) => \
         [row.querySelector('button').textContent, row.cells[1].textContent, \
          Number(row.cells[3].textContent)])",
    );
    let expected = (0..).zip(HELD).map(|(at, held)| json!([format!("node-{at}"), "live", held]));
    assert_eq!(rows, Value::Array(expected.collect()), "the nodes, the fullest first");
}

fn the_map_of_owners_zooms(browser: &mut Browser, prefix: &str) {
    browser.click("#by-owner");
    browser.until("document.getElementById('by-owner').ariaPressed === 'true'");
    let scale = "import('/page/map.js').then(({ state }) => state().scale)";
    let before = browser.ask(scale).as_f64().expect("a scale");
    for _ in 0..6 {
        browser.click("#zoom-in");
    }
    let after = browser.ask(scale).as_f64().expect("a scale");
    assert!(after > 2.0 * before, "{before} to {after}");
    // The addresses of blocks in view are shown.
    let loaded =
        format!("import('/page/map.js').then(({{ state }}) => state().addresses.has({prefix:?}))");
    browser.until(&loaded);
    keep_picture(browser, "zoomed");
    browser.click("#zoom-fit");
    browser.click("#by-fill");
}

#[test]
fn a_search_leads_to_the_block() {
    let etcd = Cluster::start(1);
    let daemons = cluster(&etcd);
    let listen = daemons[2].listen().to_string();
    let rows = daemons[2].client().get("/v1/records?pod=cart-1-7");
    let (address, container) = (&rows[0]["address"], &rows[0]["containerId"]);
    let (address, container) =
        (address.as_str().expect("an address"), container.as_str().expect("a container"));
    let mut browser = Browser::start();
    // A node that does not hold it finds it.
    open(&mut browser, &daemons[2]);
    for query in [address, container, "shop/cart-1-7", "cart-1-7"] {
        browser.ask("document.activeElement.blur()");
        browser.press("/");
        browser.until("document.activeElement.id === 'query'");
        browser.ask("document.getElementById('query').select()");
        browser.write(query);
        let found = "#found button[data-address]";
        browser.until(&format!(
            "!document.getElementById('found').hidden && document.querySelector({found:?})"
        ));
        let hits = browser.ask(&format!("document.querySelectorAll({found:?}).length"));
        assert_eq!(
            (hits, text(&mut browser, &format!("{found} .mono"))),
            (json!(1), address.into())
        );
        if query == "cart-1-7" {
            keep_picture(&mut browser, "search");
        }
        browser.press("ArrowDown");
        browser.press("Enter");
        browser.until("document.querySelector('#block .chosen')");
        let chosen = text(&mut browser, "#block .chosen");
        assert!(chosen.contains(address) && chosen.contains(container), "{query}: {chosen}");
        assert_eq!(text(&mut browser, "#block-owner"), "node-1");
        browser.click("#zoom-fit");
        browser.ask("document.getElementById('map').focus()");
        browser.press("Escape");
        browser.until("!document.querySelector('#block .chosen')");
    }
    browser.click("#query");
    browser.ask("document.getElementById('query').select()");
    browser.write("node-1");
    browser.until("document.querySelector('#found button')");
    browser.press("Enter");
    browser.until(
        "document.querySelector('#nodes [aria-pressed=\"true\"]')?.textContent === 'node-1'",
    );
    assert_eq!(browser.complaints(&listen), [""; 0]);
}

#[test]
fn changes_and_events_are_shown_without_reloading() {
    let etcd = Cluster::start(1);
    let mut daemons = cluster(&etcd);
    let listen = daemons[0].listen().to_string();
    // A page that was just opened has a curve: the daemon has noted points before.
    let trend = || daemons[0].client().get("/v1/trend");
    let noted = || !trend()["pools"][0]["points"][1].is_null();
    assert!(poll(super::browser::PATIENCE, noted), "{}", trend());
    let mut browser = Browser::start();
    open(&mut browser, &daemons[0]);
    browser.click("#sets button[data-name^='pods,']");
    browser.until("document.getElementById('trend-text').textContent.includes('held (line)')");
    let all = HELD.iter().sum::<usize>();
    let held = |count: usize| {
        format!(
            "document.querySelector(\"[data-figure='Held']\").textContent.startsWith('{count} of')"
        )
    };
    browser.until(&held(all));
    add(&daemons[1], "late", &pods()).expect_result();
    browser.until(&held(all + 1));
    let small = network("small", &json!({ "subnet": "10.77.0.0/30" }));
    add(&daemons[0], "first", &small).expect_result();
    for name in ["second", "third"] {
        assert!(!add(&daemons[0], name, &small).succeeded());
    }
    let event = |kind: &str| format!("document.querySelector('#events [data-kind=\"{kind}\"]')");
    browser.until(&format!("{}?.textContent.includes('(2 times)')", event("exhausted")));
    assert!(text(&mut browser, "#events [data-kind='exhausted']").contains("small"));
    assert!(!text(&mut browser, "#events").contains("second"), "no pod is named to everybody");
    daemons[2].kill9();
    browser.until(&format!("{}?.textContent.includes('node-2 left')", event("nodeLeft")));
    browser.until(
        "[...document.querySelectorAll('#nodes tbody tr')].some((row) => \
         row.textContent.startsWith('node-2') && row.textContent.includes('no session'))",
    );
    daemons[2].restart();
    browser.until(&format!("{}?.textContent.includes('node-2 joined')", event("nodeJoined")));
    let drained = daemons[0].client().request("POST", "/v1/nodes/node-1/drain", "{}");
    assert_eq!(drained.status, 200, "{}", drained.body);
    browser.until(&format!("{}?.textContent.includes('node-1')", event("nodeDrained")));
    keep_picture(&mut browser, "events");
    assert_eq!(browser.complaints(&listen), [""; 0]);
}
