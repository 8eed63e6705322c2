//! `build login`, `build logout`.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;

use registry::{Client, ClientOptions, Error, HostOptions, LoginError, registry_of};

use crate::commands::{client_options, registry_failure};
use crate::report::{Exit, Failure, chain, print, tell};

/// Longest password that is read, in bytes.
const LONGEST: u64 = 1 << 16;

/// Log in to a registry: the password is checked there, and kept in the file of Docker's client or of Podman
#[derive(Debug, clap::Parser)]
#[command(
    after_help = "Example: build login -u ci --password-stdin registry.example.com:5000 < token

The file is $REGISTRY_AUTH_FILE, else $DOCKER_CONFIG/config.json, else ~/.docker/config.json.
A credential helper that it names is used."
)]
pub(crate) struct LoginArgs {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password; others may see it in the list of processes, so rather use --password-stdin
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from the standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Allow plain HTTP and certificates that nobody vouches for
    #[arg(long)]
    insecure: bool,
    /// Registry [default: docker.io]
    #[arg(value_name = "REGISTRY", default_value = "", hide_default_value = true)]
    registry: String,
}

/// Log out of a registry: what is kept of it is removed
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build logout registry.example.com:5000")]
pub(crate) struct LogoutArgs {
    /// Registry [default: docker.io]
    #[arg(value_name = "REGISTRY", default_value = "", hide_default_value = true)]
    registry: String,
}

/// Checks and keeps.
pub(crate) fn login(args: LoginArgs) -> Result<Exit, Failure> {
    let host = registry_of(&args.registry).to_owned();
    let file = file()?;
    if args.password.is_some() {
        tell(format_args!(
            "WARNING: a password on the command line is seen by others: use --password-stdin"
        ));
    }
    let user = match args.username {
        Some(user) => user,
        None => asked(&format!("User name for {host}: "), true)?,
    };
    let password = match args.password {
        Some(password) => password,
        None if args.password_stdin => read_password()?,
        None => asked("Password: ", false)?,
    };
    if user.is_empty() || password.is_empty() {
        let empty = if user.is_empty() { "user name" } else { "password" };
        return Err(Failure::new(Exit::Usage, format!("the {empty} is empty")));
    }
    let mut options = ClientOptions { auth_files: Vec::new(), ..client_options() };
    if args.insecure {
        options.hosts.insert(host.clone(), HostOptions { insecure: Some(true) });
    }
    Client::check_login(options, &host, &user, &password)
        .map_err(|error| refused(&host, &error))?;
    registry::save_login(&file, &host, &user, &password).map_err(|error| unkept(&error))?;
    print(format_args!("Login Succeeded"))?;
    Ok(Exit::Done)
}

/// Removes.
pub(crate) fn logout(args: &LogoutArgs) -> Result<Exit, Failure> {
    let host = registry_of(&args.registry);
    let file = file()?;
    if registry::remove_login(&file, host).map_err(|error| unkept(&error))? {
        print(format_args!("Removed the login of {host}"))?;
    } else {
        print(format_args!("Not logged in to {host} by `{}`", file.display()))?;
    }
    Ok(Exit::Done)
}

/// The file that logins are kept in.
fn file() -> Result<PathBuf, Failure> {
    registry::login_file(|name| std::env::var_os(name)).ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no place for the login")
            .hint("set HOME, DOCKER_CONFIG or REGISTRY_AUTH_FILE")
    })
}

fn refused(host: &str, error: &Error) -> Failure {
    match error {
        Error::Unauthorized { message, .. } => {
            let said = if message.is_empty() { String::new() } else { format!(": {message}") };
            let message =
                format!("registry `{host}` does not accept this user name and password{said}");
            Failure::new(Exit::Network, message)
                .hint("check both; some registries want an access token in place of the password")
        }
        other => registry_failure(other, chain(other)),
    }
}

fn unkept(error: &LoginError) -> Failure {
    let failure = Failure::new(Exit::Machine, chain(error));
    match error {
        LoginError::Helper { .. } => failure.hint(
            "install the helper, or take it out of the file (`credsStore`, `credHelpers`) to have the login in the file",
        ),
        LoginError::Malformed { .. } => failure.hint("correct the file, or move it away"),
        LoginError::File { .. } => failure,
    }
}

fn read_password() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| Failure::new(Exit::Usage, format!("cannot read the password: {error}")))?;
    // One line end belongs to whoever wrote it, not to the password.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Asks the user, who sees what is typed or not.
fn asked(question: &str, visible: bool) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "cannot ask for the user name and password: standard input is not a terminal",
        )
        .hint("give --username and --password-stdin"));
    }
    let unreadable =
        |error: std::io::Error| Failure::new(Exit::Machine, format!("cannot ask: {error}"));
    let mut terminal = std::io::stderr();
    let _ = terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush());
    if visible {
        let mut line = String::new();
        stdin.lock().read_line(&mut line).map_err(unreadable)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let hidden = Hidden::new().map_err(unreadable)?;
    let mut line = Vec::new();
    for byte in stdin.lock().bytes() {
        match byte.map_err(unreadable)? {
            b'\n' | b'\r' => break,
            // Ctrl-C, which the terminal does not turn into a signal meanwhile.
            3 => {
                drop(hidden);
                return Err(Failure::new(Exit::Interrupted, "interrupted"));
            }
            8 | 127 => drop(line.pop()),
            byte => line.push(byte),
        }
    }
    drop(hidden);
    String::from_utf8(line).map_err(|_| Failure::new(Exit::Usage, "the password is not UTF-8"))
}

/// A terminal that shows nothing of what is typed, until it is dropped.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    fn new() -> std::io::Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(std::io::stdin(), OptionalActions::Now, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
        let _ = std::io::stderr().write_all(b"\n");
    }
}
