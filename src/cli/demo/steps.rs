//! The calls that are shown one by one, each with its expected answer.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use super::plugin::{Call, Plugin, Run};
use super::screen::Screen;
use crate::api::allocations::{AllocationRow, Filter};
use crate::cli::allocations;

/// The example configuration exactly as its source prints it: it is not JSON.
const AS_PRINTED: Config = Config {
    path: "deploy/examples/my-ipam.as-printed.json",
    text: include_str!("../../../deploy/examples/my-ipam.as-printed.json"),
};

/// The same example without its fault, and with the two keys that every configuration needs.
pub(super) const MENDED: Config = Config {
    path: "deploy/examples/my-net.json",
    text: include_str!("../../../deploy/examples/my-net.json"),
};

/// The example for the command line: two range sets, so two addresses.
pub(super) const TWO_FAMILIES: Config = Config {
    path: "deploy/examples/two-families.json",
    text: include_str!("../../../deploy/examples/two-families.json"),
};

/// A pod whose name says that it is of stage `sandbox`.
const SANDBOX_POD: &str =
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=pay-10-sandbox-84f8cc5d4b-8v4fw";

/// A network configuration, and where a reader finds it.
#[derive(Debug)]
pub(super) struct Config {
    path: &'static str,
    pub(super) text: &'static str,
}

/// One shown call.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    /// The call in words.
    pub(super) title: String,
    /// True if the answer was the expected one.
    pub(super) ok: bool,
    /// The faults of the answer.
    pub(super) wrong: Vec<String>,
}

/// Runs, shows and judges calls.
struct Show<'a> {
    plugin: &'a Plugin,
    screen: &'a Screen,
    steps: Vec<Step>,
}

/// The expected result of a call.
enum Expect<'a> {
    /// Exit 0 and print a result with these addresses.
    Addresses(&'a [&'a str]),
    /// Exit 0 and print exactly this.
    Same(&'a str),
    /// Exit 0 and print nothing.
    Silence,
    /// Exit 1 and print an error object with this code and these words in its message.
    Error(u64, &'a [&'a str]),
}

/// Makes and shows all calls.
///
/// # Errors
/// A call could not be made at all, or the demo was interrupted.
pub(super) fn show(plugin: &Plugin, screen: &Screen) -> anyhow::Result<Vec<Step>> {
    let mut show = Show { plugin, screen, steps: Vec::new() };
    show.as_printed()?;
    show.mended()?;
    show.two_families()?;
    Ok(show.steps)
}

impl Show<'_> {
    fn as_printed(&mut self) -> anyhow::Result<()> {
        self.title(1, "the example configuration as it is printed: it has one comma too many")?;
        let call = call("ADD", "web-1", &AS_PRINTED);
        let words = ["trailing comma", "line 21 column 3"];
        let so = "one error, with the place of the fault";
        self.step(&call, AS_PRINTED.path, &Expect::Error(6, &words), so)?;
        Ok(())
    }

    fn mended(&mut self) -> anyhow::Result<()> {
        self.title(2, "the same, mended: cniVersion and name added, the comma removed")?;
        let path = MENDED.path;
        let add = call("ADD", "web-1", &MENDED);
        let first = Expect::Addresses(&["10.10.1.22/16"]);
        let added = self.step(&add, path, &first, "the first address outside of all stages")?;
        self.follow_up(&call("CHECK", "web-1", &MENDED), path, "1.1.0", &added)?;
        let so = "the same answer again, no second address";
        self.step(&add, path, &Expect::Same(&added.stdout), so)?;

        let pod = Call { args: SANDBOX_POD, ..call("ADD", "pay-1", &MENDED) };
        let listed = Expect::Addresses(&["10.10.1.20/16"]);
        let sandbox = self.step(&pod, path, &listed, "the address listed for stage sandbox")?;
        self.follow_up(&call("DEL", "web-1", &MENDED), path, "1.1.0", &added)?;
        self.follow_up(&Call { command: "DEL", ..pod }, path, "1.1.0", &sandbox)?;
        self.nothing_left()
    }

    fn two_families(&mut self) -> anyhow::Result<()> {
        self.title(3, "the example for the command line: two range sets, so two addresses")?;
        let path = TWO_FAMILIES.path;
        let add = Call { ifname: "dummy0", ..call("ADD", "example", &TWO_FAMILIES) };
        let both = Expect::Addresses(&["203.0.113.2/24", "2001:db8:1::2/64"]);
        let added = self.step(&add, path, &both, "one address of each family")?;
        self.screen.text("  CHECK exists since cniVersion 0.4.0, so this call has that one.\n")?;
        let check = Call { command: "CHECK", ..add.clone() };
        self.follow_up(&check, path, "0.4.0", &added)?;
        self.follow_up(&Call { command: "DEL", ..add }, path, "0.3.1", &added)?;
        self.nothing_left()
    }

    fn title(&self, number: u32, text: &str) -> anyhow::Result<()> {
        self.screen.text("\n")?;
        self.screen.title(&format!("{number}. {text}"))
    }

    /// A CHECK or DEL as a runtime makes it: the ADD's result is part of the configuration.
    fn follow_up(
        &mut self,
        call: &Call<'_>,
        path: &str,
        version: &str,
        added: &Run,
    ) -> anyhow::Result<()> {
        let config = with_prev_result(call.config, version, added.json())?;
        let call = Call { config: &config, ..call.clone() };
        let path = format!("{path} + prevResult");
        let so = match call.command {
            "CHECK" => "it still holds the addresses of its ADD",
            _ => "its addresses are free again",
        };
        self.step(&call, &path, &Expect::Silence, so)?;
        Ok(())
    }

    /// Makes one call, shows it, and remembers whether its result was the expected one.
    fn step(
        &mut self,
        call: &Call<'_>,
        path: &str,
        expect: &Expect<'_>,
        so: &str,
    ) -> anyhow::Result<Run> {
        self.screen.command(&typed(call, path))?;
        let run = self.plugin.run(call)?;
        match expect {
            Expect::Same(text) if *text == run.stdout => {
                self.screen.printed(&format!("({} lines as above)", text.lines().count()))?;
            }
            _ => self.screen.printed(&run.stdout)?,
        }
        let wrong = expect.wrong(&run);
        let took = run.took.as_secs_f64() * 1e3;
        let end = run.status.code().map_or(run.status.to_string(), |code| format!("exit {code}"));
        self.screen.verdict(wrong.is_empty(), &format!("{end} in {took:.1} ms, {so}"))?;
        for why in &wrong {
            self.screen.wrong(why)?;
        }
        let title = format!("{} {} on {path}", call.command, call.container);
        self.steps.push(Step { title, ok: wrong.is_empty(), wrong });
        Ok(run)
    }

    /// Asks the daemon itself for addresses that are still held.
    fn nothing_left(&mut self) -> anyhow::Result<()> {
        let left = left(self.plugin)?;
        let wrong: Vec<String> = left.iter().map(describe).collect();
        if let Some(step) = self.steps.last_mut()
            && !wrong.is_empty()
        {
            self.screen.verdict(false, &format!("after the DELs: {}", wrong.join(", ")))?;
            step.ok = false;
            step.wrong.extend(wrong);
        }
        Ok(())
    }
}

impl Expect<'_> {
    /// The parts of the expectation that a run did not meet.
    fn wrong(&self, run: &Run) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut unless = |right: bool, why: String| {
            if !right {
                wrong.push(why);
            }
        };
        if let Self::Error(code, words) = self {
            let json = run.json();
            let msg = json["msg"].as_str().unwrap_or_default();
            let status = run.status.code();
            unless(status == Some(1), format!("it ended with {}, not with 1", run.status));
            unless(json["code"] == *code, format!("its error code is {}", json["code"]));
            for word in *words {
                unless(msg.contains(word), format!("its message does not say {word:?}: {msg:?}"));
            }
            return wrong;
        }
        if let Err(why) = run.succeeded() {
            return vec![why];
        }
        match self {
            Self::Addresses(expected) => {
                let given = run.addresses();
                unless(given == *expected, format!("it gave {given:?}, not {expected:?}"));
            }
            Self::Same(text) => {
                unless(run.stdout == *text, format!("it printed {:?}", run.stdout));
            }
            Self::Silence => {
                unless(run.stdout.is_empty(), format!("it printed {:?}", run.stdout));
            }
            Self::Error(..) => {}
        }
        wrong
    }
}

fn call<'a>(command: &'static str, container: &'a str, config: &Config) -> Call<'a> {
    Call { command, container, ifname: "eth0", args: "", config: config.text }
}

/// The command that a person types for a call, after [`super::plugin::SHARED`] has been exported.
fn typed(call: &Call<'_>, path: &str) -> String {
    let mut text = String::new();
    for (name, value) in call.environment() {
        if name == "CNI_ARGS" {
            text.push_str(&format!("\\\n    {name}='{value}' \\\n    "));
        } else {
            text.push_str(&format!("{name}={value} "));
        }
    }
    format!("{text}my-ipam < {path}")
}

fn with_prev_result(config: &str, version: &str, mut result: Value) -> anyhow::Result<String> {
    let mut config: Value = serde_json::from_str(config).context("an example is not JSON")?;
    // 0.3.1 and 0.4.0 have the same form of result, so only the version has to change.
    for value in [&mut config, &mut result] {
        if let Some(object) = value.as_object_mut() {
            object.insert("cniVersion".to_owned(), version.into());
        }
    }
    config["prevResult"] = result;
    Ok(config.to_string())
}

/// The addresses that are held, according to the daemon.
pub(super) fn left(plugin: &Plugin) -> anyhow::Result<Vec<AllocationRow>> {
    allocations::list(plugin.socket(), &Filter::default())
}

/// One held address, in words.
pub(super) fn describe(row: &AllocationRow) -> String {
    format!("{} is still held by container {}", row.address, row.container_id)
}

/// Adds three containers that stay, for the reader to look at.
pub(super) fn leave_some(plugin: &Plugin) -> anyhow::Result<()> {
    for (container, args, config) in
        [("demo-1", "", &MENDED), ("demo-2", SANDBOX_POD, &MENDED), ("demo-3", "", &TWO_FAMILIES)]
    {
        let add = Call { args, ..call("ADD", container, config) };
        let ended = plugin.run(&add)?.succeeded();
        ended.map_err(|why| anyhow::anyhow!("ADD of {container}: {why}"))?;
    }
    Ok(())
}
