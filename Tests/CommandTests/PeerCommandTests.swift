import ArgumentParser
import Testing

@testable import vhost_pci

@Suite struct PeerCommandTests {
    @Test func `two stations are taken`() throws {
        let command = try VhostPCI.parseAsRoot([
            "peer", "--socket", "/tmp/a", "--mac", "02:00:00:00:00:01",
            "--partner", "02:00:00:00:00:02",
        ])
        #expect(command is PeerCommand)
    }

    @Test(arguments: [
        ["--mac", "ff:ff:ff:ff:ff:ff"], ["--mac", "01:00:5e:00:00:01"],
        ["--partner", "33:33:00:00:00:01"], ["--partner", "02:00:00:00:00:01"],
        ["--mac", "02:00:00:00:00"], ["--mac", "02:00:00:00:00:0g"],
        ["--socket", ""], ["--socket", "/tmp/" + String(repeating: "x", count: 103)],
        ["--duration", "0"], ["--duration", "-1"], ["--duration", "nan"], ["--lengths", "59"],
        ["--lengths", "64,"],
    ])
    func `what makes no sense is refused`(_ arguments: [String]) {
        #expect(throws: (any Error).self) {
            try VhostPCI.parseAsRoot(["peer", "--socket", "/tmp/a"] + arguments)
        }
    }
}
