//! The page by keyboard, in the dark, on a phone; without names, without etcd, without a daemon.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::{Browser, keep_picture, open, place_of, text};
use crate::cluster::{network, nodes, options};
use crate::common::etcd::Cluster;
use crate::common::{Call, Daemon, Options};

/// Presses of a key after which something must have the focus.
const TABS: usize = 40;

/// A daemon of its own that holds addresses for these containers.
fn alone(arguments: &[&str], containers: &[&str]) -> Daemon {
    let args = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let daemon = Daemon::start(&Options { args, ..Options::default() });
    let config = network("pods", &json!({ "subnet": "10.64.0.0/24" }));
    for container in containers {
        daemon.client().call(&Call::new("ADD", container, &config)).expect_result();
    }
    daemon
}

/// The block with most of what the daemon holds, and how much that is.
fn fullest(daemon: &Daemon) -> (String, u64) {
    let map = daemon.client().get("/v1/map");
    let blocks = map["sets"][0]["blocks"].as_array().expect("blocks").iter();
    let (held, prefix) = blocks
        .map(|block| (block[3].as_u64(), block[0].as_str().expect("a prefix")))
        .max()
        .expect("a block");
    (prefix.to_owned(), held.expect("a count"))
}

/// Chooses a block with the arrow keys.
fn choose(browser: &mut Browser, prefix: &str) {
    let chosen = "document.getElementById('block-prefix')?.textContent ?? ''";
    let come = (0..TABS).any(|_| {
        browser.press("ArrowRight");
        browser.ask(chosen) == prefix
    });
    assert!(come, "{prefix} is not reached");
}

fn rows(count: u64) -> String {
    format!("document.querySelectorAll('#block .held li').length === {count}")
}

#[test]
fn everything_can_be_done_by_keyboard() {
    let daemon = alone(&["--listen-details"], &["a", "b", "c"]);
    let mut browser = Browser::start();
    open(&mut browser, &daemon);
    let tab_to = |browser: &mut Browser, id: &str| {
        let has = format!("document.activeElement.id === {id:?}");
        let come = (0..TABS).any(|_| {
            browser.press("Tab");
            browser.ask(&has) == true
        });
        assert!(come, "{id} is not reached by the keyboard");
    };
    browser.ask("document.activeElement.blur()");
    tab_to(&mut browser, "theme");
    for scheme in ["light", "dark", "system"] {
        browser.press("Enter");
        assert_eq!(text(&mut browser, "#theme"), format!("Theme: {scheme}"));
    }
    tab_to(&mut browser, "by-owner");
    browser.press("Enter");
    browser.until("document.getElementById('by-owner').ariaPressed === 'true'");
    tab_to(&mut browser, "map");
    let (prefix, held) = fullest(&daemon);
    choose(&mut browser, &prefix);
    browser.until(&rows(held));
    // What was chosen is said to those who do not see it.
    let said = text(&mut browser, "#said");
    assert!(said.starts_with(&prefix) && said.contains(&format!("{held} of ")), "{said}");
    let scale = "import('/page/map.js').then(({ state }) => state().scale)";
    let fitted = browser.ask(scale).as_f64().expect("a scale");
    (0..3).for_each(|_| browser.press("+"));
    assert!(browser.ask(scale).as_f64().expect("a scale") > fitted);
    browser.press("0");
    assert_eq!(browser.ask(scale).as_f64(), Some(fitted));
    browser.press("Escape");
    browser.until("!document.getElementById('block-prefix')");
    browser.press("/");
    assert_eq!(browser.ask("document.activeElement.id"), "query");
    let focus = browser.ask("getComputedStyle(document.activeElement).outlineStyle");
    assert_ne!(focus, "none", "the focus is seen");
    assert_eq!(browser.complaints(&daemon.listen().to_string()), [""; 0]);
}

#[test]
fn the_page_is_dark_where_the_system_is_and_fits_a_phone() {
    let daemon = alone(&["--listen-details"], &["a", "b", "c"]);
    let mut browser = Browser::start();
    open(&mut browser, &daemon);
    let light = |browser: &mut Browser, selector: &str, of: &str| {
        let colour = browser.ask(&format!(
            "getComputedStyle(document.querySelector({selector:?})).{of}.match(/\\d+/g).slice(0, 3)\
             .reduce((sum, part) => sum + Number(part), 0) / 765"
        ));
        colour.as_f64().expect("a colour")
    };
    for (scheme, dark) in [("dark", true), ("light", false)] {
        browser.prefer(scheme);
        browser.until(&format!("document.documentElement.dataset.theme === {scheme:?}"));
        let back = light(&mut browser, "body", "backgroundColor");
        let words = light(&mut browser, "body", "color");
        assert_eq!((back < 0.2, words > 0.8), (dark, dark), "{scheme}: {words} on {back}");
        let corner = browser.ask(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => { \
             const often = { willReadFrequently: true }; \
             const copy = new OffscreenCanvas(1, 1).getContext('2d', often); \
             copy.drawImage(document.getElementById('map'), 0, 0, 1, 1, 0, 0, 1, 1); \
             done(copy.getImageData(0, 0, 1, 1).data[0]); })))",
        );
        assert_eq!(corner.as_u64().expect("a colour") < 60, dark, "the map in {scheme}");
        keep_picture(&mut browser, scheme);
    }
    browser.size(390, 844, true);
    browser.until("innerWidth === 390");
    let wide = browser.ask("document.documentElement.scrollWidth");
    assert!(wide.as_u64().expect("a width") <= 390, "it scrolls to the side: {wide}");
    let low = browser.ask(
        "[...document.querySelectorAll('button')].filter((one) => one.offsetHeight > 0 && \
         one.offsetHeight < 36 && !one.closest('td')).map((one) => one.textContent)",
    );
    assert_eq!(low, json!([]), "buttons too low for a finger");
    browser.until("import('/page/map.js').then(({ state }) => state().width < 390)");
    let (prefix, held) = fullest(&daemon);
    let place = place_of(&mut browser, &prefix);
    let touch = json!([{ "x": place[0], "y": place[1] }]);
    browser.call("Input.dispatchTouchEvent", json!({ "type": "touchStart", "touchPoints": touch }));
    browser.call("Input.dispatchTouchEvent", json!({ "type": "touchEnd", "touchPoints": [] }));
    browser.until(&rows(held));
    browser.ask("scrollTo(0, 0)");
    keep_picture(&mut browser, "phone");
    assert_eq!(browser.complaints(&daemon.listen().to_string()), [""; 0]);
}

#[test]
fn names_are_shown_to_the_holder_of_the_token() {
    let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let file = dir.path().join("token");
    fs::write(&file, "0123456789abcdef\n").expect("a token");
    let path = file.to_string_lossy().into_owned();
    let choose = |browser: &mut Browser, daemon: &Daemon| {
        browser.ask("document.getElementById('map').focus()");
        choose(browser, &fullest(daemon).0);
        browser.until("document.getElementById('permit')");
    };
    let mut browser = Browser::start();
    let hidden = alone(&[], &["secret-container"]);
    open(&mut browser, &hidden);
    choose(&mut browser, &hidden);
    let permit = text(&mut browser, "#permit");
    assert!(
        permit.contains("listenDetails = true") && permit.contains("listenTokenFile"),
        "{permit}"
    );
    assert_eq!(browser.ask("document.getElementById('token')"), json!(null), "no token would help");
    let shown = browser.ask("document.documentElement.textContent");
    assert!(!shown.as_str().expect("text").contains("secret-container"));
    keep_picture(&mut browser, "hidden");
    // It does not even ask for what it would not get.
    assert_eq!(browser.complaints(&hidden.listen().to_string()), [""; 0]);

    let closed = alone(&["--listen-token-file", &path], &["secret-container"]);
    open(&mut browser, &closed);
    choose(&mut browser, &closed);
    browser.click("#token");
    browser.write("0123456789abcdeF");
    browser.press("Enter");
    browser.until("document.querySelector('#permit [role=alert]')");
    assert!(text(&mut browser, "#permit").contains("the token is not the one"), "it says why");
    browser.click("#token");
    browser.write("0123456789abcdef");
    browser.press("Enter");
    browser.until(&rows(1));
    assert!(text(&mut browser, "#block").contains("secret-container"));
}

#[test]
fn what_is_missing_is_said() {
    let mut browser = Browser::start();
    let mut empty = alone(&[], &[]);
    browser.open(&format!("http://{}/", empty.listen()));
    browser.until("document.getElementById('nothing').textContent.includes('No network')");
    browser.until("document.getElementById('state').textContent === 'live, alone'");
    keep_picture(&mut browser, "empty");
    assert_eq!(browser.complaints(&empty.listen().to_string()), [""; 0]);
    empty.terminate();
    browser.until("document.getElementById('state').textContent === 'no answer'");
    let trouble = text(&mut browser, "#trouble");
    assert!(
        trouble.contains("does not answer") && trouble.contains("leasehold status"),
        "{trouble}"
    );
    keep_picture(&mut browser, "gone");

    let mut etcd = Cluster::start(1);
    let daemon = nodes(&etcd, 1, &[]).remove(0);
    let config = network("pods", &json!({ "subnet": "10.64.0.0/24" }));
    daemon.client().call(&Call::new("ADD", "a", &config)).expect_result();
    open(&mut browser, &daemon);
    browser.until("document.getElementById('state').textContent === 'live'");
    etcd.kill(0);
    browser.until("document.getElementById('state').textContent === 'etcd away'");
    let trouble = text(&mut browser, "#trouble");
    assert!(
        trouble.contains("the cluster's store") && trouble.contains("was counted at"),
        "{trouble}"
    );
    let held = text(&mut browser, "[data-figure='Held']");
    assert!(held.starts_with("1 of "), "what was known is still shown: {held}");
    keep_picture(&mut browser, "etcd-away");
    // A daemon that never reached etcd has a page, too.
    let cold = Daemon::start(&options(&etcd, "cold", &[]));
    browser.open(&format!("http://{}/", cold.listen()));
    browser.until("document.getElementById('state').textContent === 'etcd away'");
}
