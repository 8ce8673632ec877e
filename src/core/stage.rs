//! Release stages: addresses that a range keeps for the pods of one stage.

use std::fmt;

/// A pod's release stage. Pods of no stage get none of the listed addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// `sandbox`.
    Sandbox,
    /// `smallflow`.
    Smallflow,
}

impl Stage {
    /// All stages, in the order of their lists in a range.
    pub const ALL: [Self; 2] = [Self::Sandbox, Self::Smallflow];

    /// Returns the word in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Smallflow => "smallflow",
        }
    }

    /// Returns the stage with this name; only the two words count.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == word)
    }

    /// Returns the stage in a pod name of the form `<service>-<number>-<stage>-...`. Every other
    /// name is of no stage.
    pub fn of_pod(name: &str) -> Option<Self> {
        let mut parts = name.split('-').skip(1).peekable();
        while let Some(part) = parts.next() {
            let number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if let (true, Some(stage)) = (number, parts.peek().and_then(|word| Self::parse(word))) {
                return Some(stage);
            }
        }
        None
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_follows_a_number_in_the_pod_name() {
        for (name, stage) in [
            ("pay-10-sandbox-84f8cc5d4b-8v4fw", Some(Stage::Sandbox)),
            ("pay-10-smallflow-84f8cc5d4b-8v4fw", Some(Stage::Smallflow)),
            ("pay-v2-10-sandbox-84f8cc5d4b-8v4fw", Some(Stage::Sandbox)),
            ("pay-2-10-sandbox-84f8cc5d4b-8v4fw", Some(Stage::Sandbox)),
            ("web-2-sandbox-0", Some(Stage::Sandbox)),
            ("pay-10-online-84f8cc5d4b-8v4fw", None),
            ("web-10-Sandbox-84f8cc5d4b-8v4fw", None),
            ("mysql-0", None),
            ("nginx-7d9c4b5f6-abcde", None),
            ("nginx-5678492456-x7k2m", None),
            ("backup-28123456-4tn9z", None),
            ("sandbox-1", None),
            ("pay-sandbox-1", None),
            ("10-sandbox", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(Stage::of_pod(name), stage, "{name}");
        }
    }
}
