//! Judges by the container runtime whether the pods of attachments are there.
//!
//! Only what was given to a pod is judged: its ADD names one. A runtime that knows none of the pods
//! that hold addresses may be another one than theirs, so its word counts only once it has named
//! one of them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::api::AppState;
use crate::core::attachment::Holding;
use crate::cri::Cri;

/// The runtime, as far as the sweep knows it.
#[derive(Debug)]
pub(super) struct Pods {
    cri: Cri,
    /// It has named a pod that holds an address.
    is_ours: bool,
}

impl Pods {
    pub(super) fn new(cri: Cri) -> Self {
        Self { cri, is_ours: false }
    }

    /// Returns the holdings of pods that the runtime does not know.
    ///
    /// # Errors
    /// Nothing can be judged, for this reason.
    pub(super) async fn gone(&mut self, node: &AppState) -> Result<Vec<Arc<Holding>>, String> {
        // First, so that a pod that comes meanwhile is not among them.
        let held = node.index.all();
        let socket = self.cri.socket().display();
        let pods = self.cri.pods().await.map_err(|why| {
            format!(
                "the container runtime cannot be asked which pods it has, so pods that are gone \
                 without a DEL are not found by that: {socket}: {why}; see whether it runs, and \
                 whether cri names its socket"
            )
        })?;
        let judged = judge(held, &pods);
        self.is_ours |= judged.known > 0;
        if self.is_ours || judged.gone.is_empty() {
            return Ok(judged.gone);
        }
        Err(format!(
            "the container runtime at {socket} knows none of the {} pods that hold addresses on \
             this node, so it may be another runtime than theirs, and nothing is released on its \
             word: see whether cri names the socket of the runtime that kubelet uses",
            judged.gone.len()
        ))
    }
}

/// The holdings of pods.
#[derive(Default)]
struct Judged {
    /// The number of those whose pod is there.
    known: usize,
    /// Those whose pod is not.
    gone: Vec<Arc<Holding>>,
}

fn judge(held: Vec<Arc<Holding>>, pods: &HashSet<String>) -> Judged {
    let mut judged = Judged::default();
    for holding in held.into_iter().filter(|holding| holding.pod.is_some()) {
        if pods.contains(&*holding.container_id.to_text()) {
            judged.known += 1;
        } else {
            judged.gone.push(holding);
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::attachment::Pod;

    fn held(container: &str, is_of_pod: bool) -> Arc<Holding> {
        let pod = is_of_pod.then(|| Pod { namespace: "work".into(), name: "web".into() }.into());
        let addresses = vec!["10.0.0.2".parse().unwrap()];
        Arc::new(Holding { pod, ..Holding::plain(container, addresses) })
    }

    #[test]
    fn only_pods_are_judged() {
        let all = vec![held("there", true), held("gone", true), held("no pod", false)];
        let pods = HashSet::from(["there".to_owned(), "starting".to_owned()]);
        let judged = judge(all, &pods);
        let gone: Vec<_> = judged.gone.iter().map(|of| of.container_id.to_text()).collect();
        assert_eq!((judged.known, gone), (1, vec!["gone".into()]));
    }
}
