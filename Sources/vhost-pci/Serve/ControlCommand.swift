import ArgumentParser
import Glibc
import HostSystem
import PCI

/// `vhost-pci ctl`: the client of the control socket.
struct ControlCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ctl",
        abstract: "Ask a running `vhost-pci serve`.",
        discussion: """
            The words are a method, as `device list` or `device.list`, and its parameters, as \
            `name=net0`; a name alone may follow `device show` and `device remove`, a level `log \
            level`, and `reload` is `config.reload`. Parameters may also be one JSON object. \
            `vhost-pci ctl methods` lists the methods. Prints the result as JSON; exit status 1 when \
            the daemon answers with an error or not at all, and when `reload` could not make every \
            device what the file says.
            """
    )

    @Option(
        help: "The control socket. Default: $VHOST_PCI_CONTROL, or /run/vhost-pci/control.sock."
    )
    var control: String?

    @Option(parsing: .unconditional, help: "Wait so many seconds for the daemon to listen.")
    var wait: Double = 0

    @Argument(help: "A method and its parameters.")
    var words: [String]

    static let defaultPath = "/run/vhost-pci/control.sock"
    /// Milliseconds in which the daemon answers.
    static let answerMilliseconds: UInt64 = 10_000

    func validate() throws {
        guard wait >= 0, wait <= 3600 else {
            throw ValidationError("--wait takes 0 to 3600 seconds")
        }
        guard ControlRequest(words) != nil else {
            throw ValidationError(
                "'\(words.joined(separator: " ").prefix(100))' is no method with parameters: give"
                    + " a method, as `device show`, then each parameter once, as KEY=VALUE or in one"
                    + " JSON object"
            )
        }
    }

    func run() throws {
        try CommandFailure.reporting(json: true) {
            guard let request = ControlRequest(words) else { throw ExitCode(2) }
            let variable = unsafe getenv("VHOST_PCI_CONTROL").map { unsafe String(cString: $0) }
            let path = control ?? variable ?? Self.defaultPath
            let answer = try ControlConnection(path, waitMilliseconds: UInt64(wait * 1000))
                .call(request)
            try CommandFailure.print(answer)
            if case .list(let refused)? = answer.members?["refused"], !refused.isEmpty,
                request.method == "config.reload"
            {
                throw ExitCode(1)
            }
        }
    }
}

/// A request as it is typed.
struct ControlRequest: Equatable {
    let method: String
    var parameters: [String: RPCValue] = [:]

    /// Reads `device add name=x kind=net`; `nil` for what is no method with parameters.
    init?(_ words: [String]) {
        let bare = words.prefix { !$0.contains("=") && !$0.hasPrefix("{") }
        guard let first = bare.first, bare.allSatisfy({ !$0.isEmpty }) else { return nil }
        // `device.show`, or `device show`; what is behind that is a parameter, points and all.
        let isWhole = first.contains(".")
        let method = isWhole ? first : bare.prefix(2).joined(separator: ".")
        let rest = bare.dropFirst(isWhole ? 1 : 2)
        if let parameter = Self.alone[method], let word = rest.first {
            guard rest.count == 1 else { return nil }
            parameters[parameter] = .text(word)
        } else if !rest.isEmpty {
            return nil
        }
        self.method = method == "reload" ? "config.reload" : method
        for word in words.dropFirst(bare.count) {
            if word.hasPrefix("{") {
                guard let members = (try? RPCValue.parse(Array(word.utf8)))?.members else {
                    return nil
                }
                guard parameters.keys.allSatisfy({ members[$0] == nil }) else { return nil }
                parameters.merge(members) { $1 }
            } else {
                let pair = word.split(
                    separator: "=",
                    maxSplits: 1,
                    omittingEmptySubsequences: false
                )
                guard pair.count == 2, !pair[0].isEmpty, parameters[String(pair[0])] == nil else {
                    return nil
                }
                parameters[String(pair[0])] = Self.value(String(pair[1]))
            }
        }
    }

    /// What a word behind these methods means.
    private static let alone = [
        "device.show": "name", "device.remove": "name", "log.level": "level",
    ]

    /// A comma makes a list; what looks like one value is a text, as everywhere in a configuration.
    private static func value(_ text: String) -> RPCValue {
        let parts = text.split(separator: ",", omittingEmptySubsequences: false)
        return parts.count > 1 ? .list(parts.map { .text(String($0)) }) : .text(text)
    }
}

/// One connection to a daemon.
struct ControlConnection {
    private let path: String
    private let socket: UnixSocket

    /// Connects; tries again for a while where nobody listens yet, or too many wait to be let in.
    init(_ path: String, waitMilliseconds: UInt64 = 0) throws {
        self.path = path
        let deadline = Deadline(milliseconds: waitMilliseconds)
        let busyDeadline = Deadline(milliseconds: ControlCommand.answerMilliseconds)
        while true {
            do {
                socket = try UnixSocket.connect(to: path)
                return
            } catch  where error.errno == .wouldBlock && !busyDeadline.hasPassed {
                usleep(20_000)
            } catch  where !deadline.hasPassed {
                usleep(20_000)
            } catch {
                throw HostRefusal(
                    "ctl/connect",
                    "no daemon can be reached at \(path): \(error.errno)",
                    remedy: Self.remedy(error.errno)
                )
            }
        }
    }

    private static func remedy(_ error: Errno) -> String {
        switch error {
        case .accessDenied, .notPermitted:
            "the mode of the socket and of its directory decides who may: run this as the daemon's"
                + " user or in the group of --socket-group"
        case .wouldBlock:
            "others wait to be let in already: is the daemon stopped, or does it hang?"
        case .connectionRefused:
            "the daemon that listened there is gone: start it again"
        default:
            "`vhost-pci serve --control PATH` listens; --control names its PATH here"
        }
    }

    /// Sends a request and waits for its answer, for a limited time.
    func call(_ request: ControlRequest) throws -> RPCValue {
        var rest = RPCValue.object([
            "jsonrpc": .text("2.0"), "id": .integer(1), "method": .text(request.method),
            "params": .object(request.parameters),
        ]).line[...]
        let deadline = Deadline(milliseconds: ControlCommand.answerMilliseconds)
        var received: [UInt8] = []
        var failure: SystemError?
        while true {
            do throws(SystemError) {
                if !rest.isEmpty { rest = rest.dropFirst(try socket.send(rest)) }
            } catch {
                // The daemon may have said why before it took the request.
                failure = error
                rest = []
            }
            let piece: UnixSocket.Received?
            do throws(SystemError) {
                piece = try socket.receive(limit: 64 << 10)
            } catch {
                throw Self.ended(path, ": \(failure?.errno ?? error.errno)")
            }
            guard let piece else {
                if let failure { throw Self.ended(path, ": \(failure.errno)") }
                try wait(deadline, toSend: !rest.isEmpty)
                continue
            }
            received += piece.bytes
            if let end = received.firstIndex(of: UInt8(ascii: "\n")) {
                return try Self.result(received[..<end], path)
            }
            if piece.bytes.isEmpty || received.count > Self.answerBytes {
                return try Self.result(received[...], path)
            }
        }
    }

    /// Most bytes of an answer.
    private static let answerBytes = 8 << 20

    private func wait(_ deadline: Deadline, toSend: Bool) throws {
        guard !deadline.hasPassed else {
            throw HostRefusal(
                "ctl/timeout",
                "the daemon at \(path) did not answer within"
                    + " \(ControlCommand.answerMilliseconds / 1000) s",
                remedy: "it is stopped or hangs: what it printed last tells where"
            )
        }
        let events = Int16(POLLIN) | (toSend ? Int16(POLLOUT) : 0)
        var wish = pollfd(fd: socket.descriptor.rawValue, events: events, revents: 0)
        _ = unsafe poll(&wish, 1, deadline.remainingMilliseconds)
    }

    private static func ended(_ path: String, _ why: String) -> HostRefusal {
        HostRefusal(
            "ctl/answer",
            "the daemon at \(path) ended the connection without an answer\(why)",
            remedy: "what it printed last tells why, such as that this is no control socket; start"
                + " it again if it is gone"
        )
    }

    private static func result(_ bytes: ArraySlice<UInt8>, _ path: String) throws -> RPCValue {
        if bytes.isEmpty { throw ended(path, "") }
        guard let members = (try? RPCValue.parse(bytes))?.members,
            members["jsonrpc"] == .text("2.0")
        else {
            throw HostRefusal(
                "ctl/answer",
                "what answers at \(path) is no daemon of this kind",
                remedy: "--control names the PATH of `vhost-pci serve --control PATH`"
            )
        }
        if let result = members["result"] { return result }
        let error = members["error"]?.members ?? [:]
        let data = error["data"]?.members ?? [:]
        throw HostRefusal(
            data["id"]?.text ?? "ctl/answer",
            error["message"]?.text ?? "the daemon gives no reason",
            remedy: data["remedy"]?.text ?? ""
        )
    }
}
