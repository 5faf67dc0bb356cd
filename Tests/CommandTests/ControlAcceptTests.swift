import Glibc
import HostSystem
import Testing

@testable import vhost_pci

/// The control socket of a daemon that has no descriptor left.
@Suite(.serialized) struct ControlAcceptTests {
    private func serve(_ place: ServePlace, prelude: String, log: String) throws -> Program {
        let program = try place.serve(
            [
                "--device", "management", "--socket-path", place.path("m.sock"), "--control",
                place.path("c.sock"),
            ],
            prelude: prelude,
            log: log
        )
        #expect(place.sees("ready", in: log))
        return program
    }

    @Test func `HI-J25: clients that find no descriptor wait, and are served when there is one`()
        throws
    {
        let place = try ServePlace("descriptors")
        let first = try serve(place, prelude: "", log: "log")
        let own = first.descriptorCount
        first.signal(SIGTERM)
        #expect(first.waitForEnd(milliseconds: 5000) == 0 && own > 3)
        let program = try serve(place, prelude: "ulimit -n \(own + 4);", log: "log2")
        let request = Array(#"{"jsonrpc":"2.0","id":1,"method":"version"}"#.utf8) + [10]
        var clients = try (0..<8).map { _ in try UnixSocket.connect(to: place.path("c.sock")) }
        for client in clients { _ = try client.send(request[...]) }
        func answered() -> Int {
            clients.count { client in (try? client.receive(limit: 4096))??.bytes.isEmpty == false }
        }
        let deadline = Deadline(milliseconds: 20_000)
        var served = 0
        while served < 3, !deadline.hasPassed {
            served += answered()
            usleep(5000)
        }
        // Some are let in, the others are not, and the daemon does not turn in circles for them.
        usleep(300_000)
        served += answered()
        #expect((3..<clients.count).contains(served))
        let before = program.cpuMilliseconds
        usleep(700_000)
        #expect(answered() == 0)
        #expect(program.cpuMilliseconds - before < 350)
        #expect(place.sees("control: limit/nofile: a client waits: ", in: "log2"))
        clients.removeFirst(served)
        served = 0
        while served < clients.count, !deadline.hasPassed {
            served += answered()
            usleep(5000)
        }
        #expect(served == clients.count)
        program.signal(SIGTERM)
        #expect(program.waitForEnd(milliseconds: 5000) == 0)
    }
}
