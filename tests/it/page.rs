//! Goal: the address map shows what the API and the commands say, to everybody who may see it, by
//! mouse, by keyboard, in the dark and on a phone; it asks nobody but the daemon, reports no error,
//! and stays usable with a thousand nodes.
//!
//! Method: headless Chromium on the page of a live cluster (a real etcd and real daemons with real
//! ADDs). Its pictures are left in `target/tmp/page`.
//!
//! All of it needs Debian's packages chromium, etcd-server and etcd-client.

mod browser;
mod live;
mod look;
mod scale;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::common::Daemon;
use browser::Browser;

/// The directory of the pictures, of which nothing is older than this run.
fn pictures() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
    fs::create_dir_all(&dir).expect("a directory for pictures");
    dir
}

/// Keeps a picture of what is shown now.
fn keep_picture(browser: &mut Browser, name: &str) {
    let picture = browser.picture();
    // A page that shows nothing is one colour, which takes next to no room.
    assert!(picture.len() > 10_000, "{name}: {} bytes", picture.len());
    let path = pictures().join(format!("{name}.png"));
    fs::write(&path, picture).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Opens the page of a daemon and waits until it shows a map.
fn open(browser: &mut Browser, daemon: &Daemon) {
    browser.open(&format!("http://{}/", daemon.listen()));
    browser.until("document.querySelectorAll('#sets button').length > 0");
}

/// The text of an element.
fn text(browser: &mut Browser, selector: &str) -> String {
    let script = format!("document.querySelector({selector:?})?.textContent ?? ''");
    browser.ask(&script).as_str().unwrap_or_default().to_owned()
}

/// The place of a block in the window.
fn place_of(browser: &mut Browser, prefix: &str) -> Value {
    browser.ask(&format!(
        "import('/page/map.js').then(({{ state, find }}) => {{ \
         const canvas = document.getElementById('map'); \
         canvas.scrollIntoView({{ block: 'center' }}); \
         const [view, place] = [state(), find({prefix:?})]; \
         const one = view.cells[place.cell].parts[place.part]; \
         const column = place.cell % view.columns, row = Math.floor(place.cell / view.columns); \
         const box = canvas.getBoundingClientRect(); \
         return [box.x + view.x + (column + one.from + one.width / 2) * view.scale, \
                 box.y + view.y + (row + 0.5) * view.scale]; }})"
    ))
}

/// One row of the map's range sets.
fn set_of<'a>(map: &'a Value, network: &str) -> &'a Value {
    let sets = map["sets"].as_array().expect("range sets");
    let found = sets.iter().find(|set| set["network"] == network);
    found.unwrap_or_else(|| panic!("no range set of {network} in {map}"))
}
