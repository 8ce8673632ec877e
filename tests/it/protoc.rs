//! The protobuf compiler of the build: `.cargo/protoc`, which must work with any installed
//! `protoc`.
//!
//! Method: the wrapper compiles a file that needs one of Google's own, with different programs
//! named `protoc` before all others in PATH.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::common::write_program;

const WRAPPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.cargo/protoc");

struct World {
    dir: TempDir,
}

impl World {
    /// Makes a folder with a file to compile, and another one as PATH, with every program of the
    /// real PATH but protoc.
    fn new() -> Self {
        let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        let world = Self { dir };
        let text = "syntax = \"proto3\";\nimport \"google/protobuf/descriptor.proto\";\n\
                    message Its { google.protobuf.FileDescriptorSet own = 1; }\n";
        fs::write(world.path("its.proto"), text).expect("a file");
        fs::create_dir(world.path("bin")).expect("a folder");
        for folder in env::split_paths(&env::var_os("PATH").expect("PATH")) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if name != "protoc" {
                    // Of two programs of one name the first one counts.
                    let _ = symlink(entry.path(), world.path("bin").join(name));
                }
            }
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn install(&self, script: &str) {
        let path = self.path("bin").join("protoc");
        write_program(&path, &format!("#!/bin/sh\n{script}\n"));
    }

    /// Runs the wrapper as a build script does: somewhere else, in the middle of a build.
    fn compile(&self) -> (Output, Vec<u8>) {
        let out = self.path("out");
        let output = Command::new(WRAPPER)
            .current_dir(self.dir.path())
            .env("PATH", self.path("bin"))
            .env("RUSTFLAGS", "--no-such-flag")
            .env("CARGO_ENCODED_RUSTFLAGS", "--no-such-flag")
            .env("CARGO_BUILD_TARGET", "no-such-target")
            .arg("--include_imports")
            .arg("--proto_path")
            .arg(self.dir.path())
            .arg("-o")
            .arg(&out)
            .arg(self.path("its.proto"))
            .output()
            .expect("the wrapper");
        (output, fs::read(out).unwrap_or_default())
    }

    fn compiles_with_googles_files(&self) {
        let (output, compiled) = self.compile();
        assert!(output.status.success(), "{output:?}");
        let compiled = String::from_utf8_lossy(&compiled);
        for name in ["its.proto", "google/protobuf/descriptor.proto", "FileDescriptorSet"] {
            assert!(compiled.contains(name), "nothing about {name}");
        }
    }
}

#[test]
fn a_machine_without_protoc_builds() {
    World::new().compiles_with_googles_files();
}

#[test]
fn a_protoc_without_googles_files_is_passed_over() {
    let world = World::new();
    // Like Debian's protobuf-compiler without libprotobuf-dev.
    world.install("echo 'google/protobuf/descriptor.proto: File not found.' >&2; exit 1");
    world.compiles_with_googles_files();
}

#[test]
fn a_protoc_that_does_nothing_is_passed_over() {
    let world = World::new();
    world.install("exit 0");
    world.compiles_with_googles_files();
}

#[test]
fn a_complete_protoc_is_used() {
    let world = World::new();
    let script = "for last; do case $previous$last in\n\
                  -o*) echo mine >\"$last\" ;;\n\
                  *--descriptor_set_out=*) echo mine >\"${last#--descriptor_set_out=}\" ;;\n\
                  esac; previous=; [ \"$last\" = -o ] && previous=-o; done; exit 0";
    world.install(script);
    let (output, compiled) = world.compile();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(compiled, b"mine\n");
}
