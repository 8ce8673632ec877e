//! The floor of the API: the same HTTP server on the same kind of socket, which sends every body
//! back.

use std::path::PathBuf;
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context as _;
use clap::Args;

use crate::cli::child;
use crate::cli::child::interrupt::Interrupt;
use crate::limits;

/// The time within which it must serve.
const START_WAIT_MAX: Duration = Duration::from_secs(5);

/// The options of `leasehold bench-echo`.
#[derive(Args, Debug)]
pub(in crate::cli) struct EchoArgs {
    /// The socket to serve
    #[arg(long)]
    socket: PathBuf,
}

/// Serves until it is told to end.
pub(in crate::cli) fn serve(args: &EchoArgs) -> anyhow::Result<ExitCode> {
    let echo = || {
        let echo =
            async |body: web::Bytes| HttpResponse::Ok().content_type("application/json").body(body);
        App::new().default_service(web::to(echo))
    };
    let server = HttpServer::new(echo).workers(1).keep_alive(limits::IDLE_CONNECTION_MAX);
    let server = server.bind_uds(&args.socket).context("cannot bind the echo's socket")?;
    actix_web::rt::System::new().block_on(server.run())?;
    Ok(ExitCode::SUCCESS)
}

/// A running echo; it ends with this value.
#[derive(Debug)]
pub(super) struct Echo {
    child: Child,
    pub(super) socket: PathBuf,
}

impl Echo {
    /// Starts it and waits until it serves.
    pub(super) fn start(dir: &std::path::Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let socket = dir.join("echo.sock");
        let mut command = child::this_program()?;
        command.arg("bench-echo").arg("--socket").arg(&socket);
        let echo = Self { child: child::spawn(command, &dir.join("echo.log"))?, socket };
        let deadline = Instant::now() + START_WAIT_MAX;
        while std::os::unix::net::UnixStream::connect(&echo.socket).is_err() {
            anyhow::ensure!(Instant::now() < deadline, "the echo does not serve");
            anyhow::ensure!(!interrupt.wait(Duration::from_millis(5)), "interrupted");
        }
        Ok(echo)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It has nothing that an orderly end would save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
