import Glibc
import HostSystem
import PCI
import Synchronization
import Testing

@testable import vhost_pci

/// A control socket in this process, and clients that behave as badly as they like.
private final class ControlRig {
    let path: String
    let loop: EventLoop
    let server: ControlServer

    /// Tests run at the same time.
    private static let number = Mutex(0)

    init(_ name: String, idleMilliseconds: UInt64 = ControlLimits.idleMilliseconds) throws {
        let number = Self.number.withLock { number in
            number += 1
            return number
        }
        path = "/tmp/vhost-pci-control-\(getpid())-\(name)\(number)"
        loop = try EventLoop()
        server = try ControlServer(
            try UnixListener(path: path),
            loop: loop,
            idleMilliseconds: idleMilliseconds
        ) { request in
            switch request.method {
            case "echo": return .object(request.parameters)
            case "big": return .text(String(repeating: "x", count: 100_000))
            case "fail":
                throw HostRefusal("test/refused", "what was found", remedy: "what cures it")
            default: throw RPCError(.method)
            }
        }
    }

    deinit { server.close() }

    func client() throws -> UnixSocket {
        let socket = try UnixSocket.connect(to: path)
        try turn()
        return socket
    }

    func turn(_ count: Int = 5) throws {
        for _ in 0..<count { try loop.turn(limitMilliseconds: 1) }
    }

    /// Sends text, and returns the lines that come back within two seconds, as many as wanted.
    func exchange(_ socket: UnixSocket, _ text: String, answers: Int = 1) throws -> [RPCValue] {
        var rest = Array(text.utf8)[...]
        var received: [UInt8] = []
        let deadline = Deadline(milliseconds: 2000)
        while !deadline.hasPassed {
            if !rest.isEmpty { rest = rest.dropFirst(try socket.send(rest)) }
            try turn(1)
            if let piece = try socket.receive(limit: 1 << 20) {
                if piece.bytes.isEmpty { break }
                received += piece.bytes
            }
            let lines = received.count { $0 == 10 }
            if rest.isEmpty, lines >= answers { break }
        }
        return received.split(separator: 10).compactMap { try? RPCValue.parse($0) }
    }

    func isClosed(_ socket: UnixSocket) throws -> Bool {
        for _ in 0..<50 {
            try turn(1)
            if let piece = try? socket.receive(limit: 1 << 20), piece.bytes.isEmpty { return true }
        }
        return false
    }
}

@Suite struct ControlServerTests {
    private func code(_ answer: RPCValue?) -> RPCValue? {
        answer?.members?["error"]?.members?["code"]
    }

    private func id(_ answer: RPCValue?) -> RPCValue? {
        answer?.members?["error"]?.members?["data"]?.members?["id"]
    }

    private func line(_ method: String, _ rest: String = "\"id\":1") -> String {
        "{\"jsonrpc\":\"2.0\",\"method\":\"\(method)\",\(rest)}\n"
    }

    @Test func `requests are answered in order, several in one piece`() throws {
        let rig = try ControlRig("order")
        let client = try rig.client()
        let text = (0..<20).map { line("echo", "\"params\":{\"n\":\($0)},\"id\":\($0)") }.joined()
        let answers = try rig.exchange(client, text, answers: 20)
        #expect(answers.count == 20)
        for (index, answer) in answers.enumerated() {
            #expect(answer.members?["id"] == .integer(Int64(index)))
            #expect(answer.members?["result"] == .object(["n": .integer(Int64(index))]))
        }
    }

    private static let wrongRequests: [(String, Int64)] = [
        ("{", -32700), ("nonsense", -32700), ("{\"a\":1}}", -32700), ("\u{1}", -32700),
        ("[1,", -32700), ("\"", -32700), ("{\"jsonrpc\":\"2.0\"}", -32600), ("7", -32600),
        ("null", -32600), ("\"text\"", -32600), ("[]", -32600), ("{}", -32600),
        ("{\"jsonrpc\":\"1.0\",\"method\":\"echo\",\"id\":1}", -32600),
        ("{\"jsonrpc\":2.0,\"method\":\"echo\",\"id\":1}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"method\":7,\"id\":1}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":{}}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":[1]}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":true}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":[1],\"id\":1}", -32602),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":7,\"id\":1}", -32602),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"frob\",\"id\":1}", -32601),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"\",\"id\":1}", -32601),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"fail\",\"id\":1}", -32000),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":{\"a\":1e999},\"id\":1}", -32700),
        (String(repeating: "[", count: 60_000), -32002),
        (String(repeating: "{\"a\":", count: 9000), -32002),
        ("[" + Array(repeating: "1", count: 17).joined(separator: ",") + "]", -32600),
    ]

    @Test(arguments: wrongRequests)
    func `HI-J24: what is no request is named, and the next one is served`(row: (String, Int64))
        throws
    {
        let rig = try ControlRig("bad")
        let client = try rig.client()
        let answers = try rig.exchange(client, row.0 + "\n" + line("echo"), answers: 2)
        #expect(answers.count == 2)
        #expect(code(answers.first) == .integer(row.1), "\(answers)")
        #expect(id(answers.first)?.text?.isEmpty == false)
        #expect(answers.last?.members?["result"] != nil)
    }

    @Test func `HI-J24: brackets in a string are no nesting, nor is an escaped quote its end`()
        throws
    {
        let text = String(repeating: "[", count: 100) + "\\\"" + String(repeating: "{", count: 100)
        let rig = try ControlRig("string")
        let client = try rig.client()
        let answers = try rig.exchange(
            client,
            line("echo", "\"params\":{\"a\":\"\(text)\"},\"id\":1")
        )
        #expect(answers.first?.members?["result"] != nil)
    }

    @Test func `HI-J24: bytes that are no text are no request`() throws {
        for bytes: [UInt8] in [
            [0xff, 0xfe], [0xc0, 0x80], [0, 0x7b, 0, 0x7d], [0xed, 0xa0, 0x80],
        ] {
            let error = #expect(throws: RPCError.self) { try RPCValue.parse(bytes) }
            #expect(error?.id == "rpc/parse")
        }
    }

    @Test func `a refusal keeps its id and remedy`() throws {
        let rig = try ControlRig("refusal")
        let client = try rig.client()
        let answers = try rig.exchange(client, line("fail"))
        let error = try #require(answers.first?.members?["error"]?.members)
        #expect(error["message"] == .text("what was found"))
        #expect(
            error["data"]
                == .object(["id": .text("test/refused"), "remedy": .text("what cures it")])
        )
    }

    @Test func `a notification is not answered, not even when it fails`() throws {
        let rig = try ControlRig("notification")
        let client = try rig.client()
        let text = line("echo", "\"params\":{}") + line("fail", "\"params\":{}") + line("echo")
        #expect(try rig.exchange(client, text, answers: 1).count == 1)
    }

    @Test func `a batch is answered as one, without its notifications`() throws {
        let rig = try ControlRig("batch")
        let client = try rig.client()
        let one = "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":\"x\"}"
        let quiet = "{\"jsonrpc\":\"2.0\",\"method\":\"echo\"}"
        let answers = try rig.exchange(client, "[\(one),\(quiet),7]\n[\(quiet)]\n")
        guard case .list(let list)? = answers.first else {
            Issue.record("no list: \(answers)")
            return
        }
        #expect(list.count == 2 && list[0].members?["id"] == .text("x"))
        #expect(code(list[1]) == .integer(-32600))
    }

    @Test func `HI-J24: a request that never ends is cut off at its limit`() throws {
        let rig = try ControlRig("endless")
        let client = try rig.client()
        let text = String(repeating: "x", count: ControlLimits.requestBytes + 100)
        let answers = try rig.exchange(client, text)
        #expect(code(answers.first) == .integer(-32001) && answers.count == 1)
        #expect(try rig.isClosed(client))
        #expect(rig.server.clientCount == 0)
    }

    @Test func `HI-J25: more clients than there is room for are told so, others are served`() throws
    {
        let rig = try ControlRig("many")
        let clients = try (0..<ControlLimits.clients).map { _ in try rig.client() }
        #expect(rig.server.clientCount == ControlLimits.clients)
        let late = try rig.client()
        #expect(code(try rig.exchange(late, "").first) == .integer(-32003))
        #expect(try rig.isClosed(late))
        #expect(try rig.exchange(clients[15], line("echo")).count == 1)
    }

    @Test func `HI-J25: one that is sent away reads why, whatever it sends meanwhile`() throws {
        let rig = try ControlRig("told")
        let clients = try (0..<ControlLimits.clients).map { _ in try rig.client() }
        for round in 0..<40 {
            let late = try UnixSocket.connect(to: rig.path)
            // Before it is let in, and after it was sent away.
            if round % 2 == 0 { _ = try late.send(Array(line("echo").utf8)[...]) }
            try rig.turn(1)
            #expect(try late.send(Array(line("echo").utf8)[...]) > 0)
            try rig.turn(1)
            let answer = try #require(try late.receive(limit: 1 << 16))
            #expect(id(try RPCValue.parse(answer.bytes)) == .text("rpc/busy"))
            #expect(try late.receive(limit: 1 << 16)?.bytes.isEmpty == true)
        }
        #expect(rig.server.clientCount == ControlLimits.clients)
        withExtendedLifetime(clients) {}
    }

    @Test func `HI-J25: who stays after it was sent away, or sends without end, is cut off`() throws
    {
        let rig = try ControlRig("stays")
        let clients = try (0..<ControlLimits.clients).map { _ in try rig.client() }
        let staying = try (0..<ControlLimits.leaving + 1).map { _ in try rig.client() }
        // The first of them makes room for the last.
        #expect(throws: SystemError.self) { try staying[0].send([1]) }
        #expect(try staying[1].send([1]) == 1)
        var sent = 0
        let deadline = Deadline(milliseconds: 10_000)
        while !deadline.hasPassed {
            guard let count = try? staying[1].send([UInt8](repeating: 32, count: 4096)[...]) else {
                break
            }
            sent += count
            try rig.turn(1)
        }
        #expect(!deadline.hasPassed && sent < 4 * ControlLimits.departureBytes)
        usleep(1_100_000)
        try rig.turn()
        #expect(throws: SystemError.self) { try staying[2].send([1]) }
        withExtendedLifetime(clients) {}
    }

    @Test func `HI-J25: the client says what the daemon said, not what became of its request`()
        throws
    {
        let rig = try ControlRig("said")
        let path = rig.path + "-raw"
        let listener = try UnixListener(path: path)
        let request = try #require(ControlRequest(["echo"]))
        let long = try #require(
            ControlRequest(["echo", "{\"a\":\"\(String(repeating: "x", count: 1 << 20))\"}"])
        )
        for (request, error) in [(request, RPCError(.busy)), (long, RPCError(.tooLarge))] {
            let connection = try ControlConnection(path)
            let server = try #require(try listener.accept())
            _ = try server.send(RPCRequest.response(.null, error).line[...])
            // It is closed before the client writes its first byte.
            withExtendedLifetime(server) {}
            let refusal = #expect(throws: HostRefusal.self) { try connection.call(request) }
            #expect(refusal?.id == error.id && refusal?.detail == error.text)
        }
        // One that goes without a word is named as that.
        let connection = try ControlConnection(path)
        #expect(try listener.accept() != nil)
        let refusal = #expect(throws: HostRefusal.self) { try connection.call(request) }
        #expect(refusal?.id == "ctl/answer" && refusal?.remedy.isEmpty == false)
    }

    @Test func `HI-J25: silent clients do not lock others out for ever`() throws {
        let rig = try ControlRig("silent", idleMilliseconds: 200)
        let silent = try (0..<ControlLimits.clients).map { _ in try rig.client() }
        usleep(250_000)
        #expect(try rig.exchange(silent[0], line("echo")).count == 1)
        let late = try rig.client()
        #expect(try rig.exchange(late, line("echo")).count == 1)
        #expect(rig.server.clientCount == ControlLimits.clients)
        // Who asked last keeps its place; of the others the one that was there first goes.
        #expect(try rig.exchange(silent[0], line("echo")).count == 1)
        #expect(try rig.isClosed(silent[1]))
    }

    @Test func `HI-J25: a client that does not read holds nobody up, and a bounded amount`() throws
    {
        let rig = try ControlRig("slow")
        let slow = try rig.client()
        let other = try rig.client()
        var accepted = 0
        let request = Array(line("big").utf8)
        for _ in 0..<2000 {
            accepted += try slow.send(request[...])
            try rig.turn(1)
        }
        // Neither the requests nor their answers pile up here: the socket is full.
        #expect(accepted < 2000 * request.count)
        #expect(try rig.exchange(other, line("echo")).count == 1)
        var answers = 0
        let deadline = Deadline(milliseconds: 5000)
        while answers < 5, !deadline.hasPassed {
            try rig.turn(1)
            answers += try slow.receive(limit: 1 << 20)?.bytes.count { $0 == 10 } ?? 0
        }
        #expect(answers >= 5)
    }

    @Test func `a client that sends no more still gets its answers`() throws {
        let rig = try ControlRig("half")
        let client = try rig.client()
        _ = try client.send(Array(line("echo").dropLast().utf8)[...])
        shutdown(client.descriptor.rawValue, Int32(SHUT_WR))
        #expect(try rig.exchange(client, "").count == 1)
        #expect(try rig.isClosed(client))
    }

    @Test func `HI-J25: two thousand visits leave nothing behind`() throws {
        let rig = try ControlRig("visits")
        for _ in 0..<2000 {
            let client = try UnixSocket.connect(to: rig.path)
            _ = try client.send(Array("{".utf8)[...])
            try rig.turn(1)
        }
        try rig.turn(50)
        #expect(rig.server.clientCount == 0)
        let next = try rig.client()
        // Other tests of this process have descriptors too, but not as many as there were visits.
        #expect(next.descriptor.rawValue < 1500)
        #expect(try rig.exchange(next, line("echo")).count == 1)
    }

    @Test func `a server that is closed ends its clients`() throws {
        let rig = try ControlRig("closed")
        let client = try rig.client()
        rig.server.close()
        #expect(try rig.isClosed(client))
        #expect(rig.server.clientCount == 0)
    }
}

@Suite struct ControlRequestTests {
    @Test func `words become a method and parameters`() {
        let add = ControlRequest(["device", "add", "name=x", "peers=/a,/b", "mtu=9000"])
        #expect(add?.method == "device.add" && add?.parameters["name"] == .text("x"))
        #expect(add?.parameters["peers"] == .list([.text("/a"), .text("/b")]))
        #expect(add?.parameters["mtu"] == .text("9000"))
        #expect(
            ControlRequest(["device.show", "x"]) == ControlRequest(["device", "show", "name=x"])
        )
        let object = ControlRequest(["device.add", "{\"name\":\"x\",\"mtu\":3}"])
        #expect(object?.parameters == ["name": .text("x"), "mtu": .integer(3)])
        #expect(ControlRequest(["stats"])?.method == "stats")
    }

    @Test func `a name with a point stays whole`() {
        #expect(
            ControlRequest(["device", "show", "port.1"])?.parameters["name"] == .text("port.1")
        )
    }

    @Test(arguments: [
        [], [""], ["name=x"], ["{}"], ["device", "show", "a", "b"], ["device.show", "a", "b"],
        ["device", "show", "a", "name=b"], ["device", "show", "a", "{\"name\":\"b\"}"],
        ["device", "add", "name=a", "name=b"], ["device", "add", "{\"name\":"],
        ["device", "add", "{}", "rest"], ["device", "add", "=x"], ["shutdown", "now", "please"],
        ["log", "level", "info", "debug"], ["version", ""],
    ])
    func `words that are no request are wrong usage`(words: [String]) {
        #expect(ControlRequest(words) == nil)
    }

    @Test func `a level and a reload may be typed as words`() {
        #expect(ControlRequest(["reload"])?.method == "config.reload")
        #expect(ControlRequest(["config", "reload"])?.method == "config.reload")
        #expect(ControlRequest(["log", "level"])?.parameters.isEmpty == true)
        #expect(
            ControlRequest(["log", "level", "info"])?.parameters == ["level": .text("info")]
        )
        #expect(ControlRequest(["device", "remove", "a.b"])?.method == "device.remove")
    }

    @Test func `what answers wrongly, or not at all, is named`() throws {
        let error = #expect(throws: HostRefusal.self) {
            try ControlConnection("/tmp/vhost-pci-no-daemon")
        }
        #expect(error?.id == "ctl/connect" && error?.remedy.isEmpty == false)
    }
}
