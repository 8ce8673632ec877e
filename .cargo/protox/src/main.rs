//! protox, called like protoc by build scripts: `-I DIR -o FILE FILE...`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use protox::Compiler;

/// The arguments that build scripts give.
#[derive(Default)]
struct Arguments {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
    out: Option<PathBuf>,
    imports: bool,
    source_info: bool,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut all = Self::default();
        while let Some(argument) = given.next() {
            let text = argument.to_string_lossy();
            let (name, value) = match text.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.into())),
                _ => (&*text, None),
            };
            let mut value = || value.clone().or_else(|| given.next().map(PathBuf::from));
            let missing = || format!("{text} needs a path");
            match name {
                "--include_imports" => all.imports = true,
                "--include_source_info" => all.source_info = true,
                "-I" | "--proto_path" => all.folders.push(value().ok_or_else(missing)?),
                "-o" | "--descriptor_set_out" => all.out = Some(value().ok_or_else(missing)?),
                _ if name.starts_with("-I") => all.folders.push(name[2..].into()),
                _ if name.starts_with('-') => return Err(format!("{text} is not known")),
                _ => all.files.push(argument.clone().into()),
            }
        }
        Ok(all)
    }

    fn compile(self) -> Result<(), String> {
        let out = self.out.ok_or("no -o")?;
        let mut compiler = Compiler::new(self.folders).map_err(|error| error.to_string())?;
        compiler.include_imports(self.imports).include_source_info(self.source_info);
        compiler.open_files(self.files).map_err(|error| format!("{error:?}"))?;
        fs::write(&out, compiler.encode_file_descriptor_set())
            .map_err(|error| format!("{}: {error}", out.display()))
    }
}

fn main() -> ExitCode {
    match Arguments::parse(env::args_os().skip(1)).and_then(Arguments::compile) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("protoc: {error}");
            ExitCode::FAILURE
        }
    }
}
