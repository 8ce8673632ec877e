//! `POST /v1/release`: an operator ends what an attachment holds, by sequence number.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::{AppState, refuse};
use crate::core::attachment::AttachmentId;
use crate::core::coordinator::{Call, Del, HoldingSelector, Outcome};
use crate::core::ids::Sequence;

/// The holding to end. If the attachment holds something newer meanwhile, nothing is done.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// The network.
    pub network: String,
    /// The container.
    pub container_id: String,
    /// The interface.
    pub ifname: String,
    /// The sequence number that a list or a report showed.
    pub sequence: u64,
}

/// The outcome of a release.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Released {
    /// True if the holding was ended; if not, it was gone or another one took its place.
    pub released: bool,
}

/// The handler.
pub async fn handle(node: web::Data<AppState>, release: web::Json<Release>) -> HttpResponse {
    let Release { network, container_id, ifname, sequence } = release.into_inner();
    let id = AttachmentId {
        network: network.into(),
        container_id: container_id.into(),
        ifname: ifname.into(),
    };
    let del = Del { id, selector: HoldingSelector::Sequence(Sequence::new(sequence)) };
    match super::outcome::execute(&node, Call::Del(del)).await.await {
        Outcome::Ended(count) => HttpResponse::Ok().json(Released { released: count > 0 }),
        Outcome::Failed(error) => {
            let error = super::outcome::explain(error);
            refuse(StatusCode::SERVICE_UNAVAILABLE, format!("{}: {}", error.msg, error.details))
        }
        Outcome::Added(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "not a release"),
    }
}
