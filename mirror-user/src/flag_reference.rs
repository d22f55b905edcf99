//! The configuration reference of `deploy/README.md` is generated from the flags. In: the command
//! line's definition. Out: a failing test if the reference differs; with `MIRROR_UPDATE_REFERENCE=1`
//! in the environment, the reference rewritten.

use std::{env, fmt::Write as _, fs};

use clap::{Arg, Command, CommandFactory as _};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/README.md");
const BEGIN: &str =
    "<!-- Generated from the flags by mirror-user/src/flag_reference.rs: begin -->\n";
const END: &str = "<!-- Generated: end -->\n";

#[test]
fn the_configuration_reference_lists_exactly_the_flags() {
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the mark where the reference begins");
    let (found, after) = rest.split_once(END).expect("the mark where the reference ends");
    let expected = reference();
    if env::var_os("MIRROR_UPDATE_REFERENCE").is_some() {
        fs::write(DOCUMENT, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        return;
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (found, expected) = (lines(found), lines(&expected));
    let stale: Vec<_> = found.iter().filter(|line| !expected.contains(line)).collect();
    let missing: Vec<_> = expected.iter().filter(|line| !found.contains(line)).collect();
    let same = found == expected;
    assert!(
        same,
        "deploy/README.md differs from the flags.\nNot in the program: {stale:#?}\nNot in the \
         document: {missing:#?}\nTo update it: MIRROR_UPDATE_REFERENCE=1 cargo test -p mirror-user \
         --bin mirror"
    );
}

/// A section for each command that users run.
fn reference() -> String {
    let program = super::Cli::command();
    let mut text = String::new();
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        section(&mut text, command);
    }
    text
}

fn section(text: &mut String, command: &Command) {
    let about = command.get_about().expect("every command is described").to_string();
    let _ = write!(text, "\n#### `mirror {}`\n\n{}\n\n", command.get_name(), sentence(&about));
    if let Some(more) = command.get_after_help() {
        let _ = write!(text, "{}\n\n", sentence(&more.to_string()));
    }
    text.push_str(
        "| flag | environment variable | default | meaning, bounds |\n|---|---|---|---|\n",
    );
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let cells = [name(arg), variable(arg), default(arg), meaning(arg)];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
}

/// The flag as it is typed.
fn name(arg: &Arg) -> String {
    let value = arg.get_value_names().map(|names| names[0].to_string());
    let value = value.unwrap_or_else(|| arg.get_id().as_str().to_uppercase());
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    match arg.get_long() {
        None => format!("`{value}`"),
        Some(long) if arg.get_action().takes_values() => format!("{short}`--{long} {value}`"),
        Some(long) => format!("{short}`--{long}`"),
    }
}

fn variable(arg: &Arg) -> String {
    arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default()
}

/// The default, or what the help says of it where it depends on something.
fn default(arg: &Arg) -> String {
    if let (_, Some(said)) = split(&help(arg)) {
        return said;
    }
    let values: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    match values.join(",") {
        _ if !arg.get_action().takes_values() => "off".into(),
        _ if arg.is_required_set() => "required".into(),
        value if value.is_empty() => "none".into(),
        value => format!("`{value}`"),
    }
}

fn meaning(arg: &Arg) -> String {
    let mut meaning = sentence(&split(&help(arg)).0);
    let values: Vec<_> = arg.get_possible_values();
    if arg.get_action().takes_values() && !values.is_empty() {
        let value = |value: &clap::builder::PossibleValue| match value.get_help() {
            Some(help) => format!("`{}`: {help}", value.get_name()),
            None => format!("`{}`", value.get_name()),
        };
        let values: Vec<_> = values.iter().map(value).collect();
        let _ = write!(meaning, " Values: {}.", values.join("; "));
    }
    meaning
}

fn help(arg: &Arg) -> String {
    arg.get_help().unwrap_or_else(|| panic!("{} has no help", arg.get_id())).to_string()
}

/// A help text without its `[default: ...]`, and what that says.
fn split(help: &str) -> (String, Option<String>) {
    let Some((before, rest)) = help.split_once(" [default: ") else { return (help.into(), None) };
    let (default, after) = rest.split_once(']').expect("a closed bracket");
    (format!("{before}{after}"), Some(default.to_owned()))
}

/// In one line, with a full stop.
fn sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.ends_with('.') { text } else { text + "." }
}
