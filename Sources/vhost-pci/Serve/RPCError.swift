/// Why a request was not carried out: an error object of JSON-RPC 2.0 whose `data.id` is stable
/// (HI-J24).
struct RPCError: Error, Equatable {
    /// What kinds there are. Numbers above -32100 are JSON-RPC's, the others ours.
    enum Kind: Int, CaseIterable {
        case parse = -32700
        case request = -32600
        case method = -32601
        case parameters = -32602
        case failed = -32000
        case tooLarge = -32001
        case tooDeep = -32002
        case busy = -32003
        case slow = -32004
        case ending = -32005

        /// The error id, what is said when there is nothing more to say, and what to do.
        var words: (id: String, text: String, remedy: String) {
            let method = "`vhost-pci ctl methods` lists methods and parameters"
            switch self {
            case .parse:
                return ("rpc/parse", "the request is no JSON value", "send one JSON value a line")
            case .request:
                return (
                    "rpc/request", "the request is no JSON-RPC 2.0 request",
                    #"send {"jsonrpc":"2.0","id":1,"method":"methods"}"#
                )
            case .method: return ("rpc/method", "there is no such method", method)
            case .parameters:
                return ("rpc/params", "the parameters do not fit the method", method)
            case .failed: return ("rpc/failed", "the request failed", "")
            case .tooLarge:
                return (
                    "rpc/too-large", "a request has at most \(ControlLimits.requestBytes) bytes",
                    "send less in one line"
                )
            case .tooDeep:
                return (
                    "rpc/too-deep",
                    "a request is nested at most \(RPCValue.depthLimit) levels deep", method
                )
            case .busy:
                return (
                    "rpc/busy", "there are \(ControlLimits.clients) clients already",
                    "end one of them; one that is silent for"
                        + " \(ControlLimits.idleMilliseconds / 1000) s makes room by itself"
                )
            case .slow:
                return (
                    "rpc/slow", "the rest of the request did not come in time",
                    "end each request with a line feed"
                )
            case .ending:
                return ("rpc/ending", "the daemon is ending", "start it again")
            }
        }
    }

    let kind: Kind
    let id: String
    let text: String
    var remedy: String?
    /// What is wrong with a configuration.
    var problems: [ConfigurationProblem] = []

    init(_ kind: Kind, _ text: String? = nil, id: String? = nil, remedy: String? = nil) {
        self.kind = kind
        self.id = id ?? kind.words.id
        self.text = text ?? kind.words.text
        self.remedy = remedy ?? (kind.words.remedy.isEmpty ? nil : kind.words.remedy)
    }

    /// The error of something that was tried.
    init(_ error: any Error) {
        if let error = error as? RPCError {
            self = error
        } else if let list = error as? ConfigurationProblemList {
            self.init(list, in: nil, remedy: "docs/serve.md lists the keys and what they take")
        } else {
            let reason = CommandFailure(error).error
            self.init(.failed, reason.detail, id: reason.id, remedy: reason.remedy)
        }
    }

    /// What is wrong with a configuration: all of it, as long as it is not too much for one line.
    init(_ list: ConfigurationProblemList, in source: String?, remedy: String) {
        let shown = 8
        var sentences = list.problems.prefix(shown).map { problem in
            source.map { problem.sentence(in: $0) }
                ?? [problem.key, problem.text].compactMap { $0 }.joined(separator: ": ")
        }
        if list.problems.count > shown {
            sentences.append("and \(list.problems.count - shown) more")
        }
        self.init(
            .parameters,
            sentences.joined(separator: "; "),
            id: list.problems.first?.id,
            remedy: remedy
        )
        problems = list.problems
    }

    /// The error object.
    var value: RPCValue {
        var data: [String: RPCValue] = ["id": .text(id)]
        data["remedy"] = remedy.map { .text($0) }
        if !problems.isEmpty { data["problems"] = try? RPCValue(encoding: problems) }
        return .object([
            "code": .integer(Int64(kind.rawValue)), "message": .text(text), "data": .object(data),
        ])
    }
}

/// One request of JSON-RPC 2.0.
struct RPCRequest: Equatable {
    let method: String
    let parameters: [String: RPCValue]
    /// `nil` for a notification, which gets no answer.
    let id: RPCValue?

    /// Checks what a client sent.
    init(_ value: RPCValue) throws(RPCError) {
        guard let members = value.members else { throw RPCError(.request) }
        guard members["jsonrpc"] == .text("2.0") else {
            throw RPCError(.request, "`jsonrpc` is not \"2.0\"")
        }
        guard let method = members["method"]?.text else {
            throw RPCError(.request, "`method` is no text")
        }
        switch members["id"] {
        case nil: id = nil
        case .text, .integer, .number, .null: id = members["id"]
        default: throw RPCError(.request, "`id` is neither text nor number")
        }
        self.method = method
        switch members["params"] {
        case nil, .null, .list([]): parameters = [:]
        case .object(let given): parameters = given
        default: throw RPCError(.parameters, "parameters are given by name, as an object")
        }
    }

    /// The id to answer what may be no request; null when it has none that can be used.
    static func id(of value: RPCValue) -> RPCValue {
        switch value.members?["id"] {
        case .text(let text): .text(text)
        case .integer(let number): .integer(number)
        case .number(let number): .number(number)
        default: .null
        }
    }

    /// An answer.
    static func response(_ id: RPCValue, _ result: RPCValue) -> RPCValue {
        .object(["jsonrpc": .text("2.0"), "id": id, "result": result])
    }

    /// An answer that says why not.
    static func response(_ id: RPCValue, _ error: RPCError) -> RPCValue {
        .object(["jsonrpc": .text("2.0"), "id": id, "error": error.value])
    }
}
