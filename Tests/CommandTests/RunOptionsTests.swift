import ArgumentParser
import PollEngine
import Testing

@testable import vhost_pci

@Suite struct RunOptionsTests {
    private func parse(_ arguments: String...) throws -> RunOptions {
        guard let command = try VhostPCI.parseAsRoot(["run"] + arguments) as? RunCommand else {
            throw ValidationError("not the run command")
        }
        return command.options
    }

    @Test func `without arguments the own peers are switched on the last usable CPU`() throws {
        let options = try parse()
        #expect(options.peers.isEmpty)
        #expect(options.chosenMode == .switch)
        #expect(options.chosenCores.count == 1)
        #expect(options.duration == nil)
        #expect(!options.json)
    }

    @Test func `all options are read`() throws {
        let options = try parse(
            "--peer",
            "/tmp/a",
            "--peer",
            "/tmp/b",
            "--mode",
            "switch",
            "--uplink",
            "tap:uplink0",
            "--cores",
            "0",
            "--duration",
            "2.5",
            "--idle",
            "sleep",
            "--json"
        )
        #expect(options.peers == ["/tmp/a", "/tmp/b"])
        #expect(options.uplinks.map(\.interface) == ["uplink0"])
        #expect(options.chosenCores == [0])
        #expect(options.duration == 2.5)
        #expect(options.json)
    }

    @Test(arguments: [
        ["--duration", "0"], ["--duration", "-1"], ["--duration", "nan"], ["--duration", "1e12"],
        ["--packet-size", "59"], ["--packet-size", "1519"], ["--mode", "flood"],
        ["--mode", "sink"], ["--peer", "/tmp/a", "--peer", "/tmp/a"],
        ["--uplink", "tap:x"], ["--peer", "/tmp/a", "--mode", "sink", "--uplink", "tap:x"],
        ["--uplink", "eth0"], ["--uplink", "tap:"], ["--uplink", "tap:a-name-that-is-too-long"],
        ["--cores", ""], ["--cores", "0,"], ["--cores", "0,0"], ["--cores", "1-0"],
        ["--cores", "-1"], ["--cores", "x"], ["--cores", "0-999999"], ["--cores", "90000"],
        ["--peer", ""], ["--peer", "/tmp/" + String(repeating: "x", count: 103)],
        ["--peer", "/tmp/a", "--uplink", "tap:x", "--uplink", "tap:x"],
        ["--peer", "/tmp/a", "--uplink", "tap:peer0"],
        ["--cores", "0-1"], ["--idle", "nap"], ["--unknown"], ["argument"],
    ])
    func `a wrong option is refused`(arguments: [String]) {
        #expect(throws: (any Error).self) { try VhostPCI.parseAsRoot(["run"] + arguments) }
    }

    @Test func `a negative number is told to be wrong, not to be missing`() {
        let error = #expect(throws: (any Error).self) { try parse("--duration", "-1") }
        let text = error.map { VhostPCI.message(for: $0) }
        #expect(text?.contains("--duration takes seconds, more than 0") == true)
    }

    @Test(arguments: [
        ("0", [0]), ("0,2", [0, 2]), ("1-3", [1, 2, 3]), ("4,0-1", [4, 0, 1]),
    ])
    func `a list of CPUs is read`(text: String, cores: [Int]) {
        #expect(CoreList(argument: text)?.cores == cores)
    }

    @Test func `devices are ports of any mode, alone or beside peers`() throws {
        for mode in ["echo", "sink", "source"] {
            let options = try parse("--device", "0000:03:00.0", "--mode", mode)
            #expect(try options.pciTargets.map { "\($0)" } == ["0000:03:00.0"])
            #expect(!options.opening.unsafeNoIOMMU)
        }
        let two = try parse(
            "--device",
            "0000:03:00.0",
            "--device",
            "04:00.0",
            "--unsafe-no-iommu"
        )
        #expect(two.chosenMode == .switch)
        #expect(two.opening.unsafeNoIOMMU)
        #expect(try two.pciTargets.map { "\($0)" } == ["0000:03:00.0", "0000:04:00.0"])
        let mixed = try parse(
            "--device",
            "emulated",
            "--device",
            "0000:03:00.0",
            "--peer",
            "/tmp/a"
        )
        #expect(try mixed.pciTargets.count == 1)
        #expect(try parse("--device", "0000:03:00.0", "--uplink", "tap:x").uplinks.count == 1)
        #expect(try parse("--device", "emulated").pciTargets.isEmpty)
        let served = try parse("--device", "vfio-user:/tmp/a", "--device", "vfio-user:/tmp/b")
        #expect(try served.pciTargets.count == 2)
    }

    @Test(arguments: [
        ["vfio-user:"], ["vfio-user:/tmp/x"], ["vhost-user:/tmp/x"], ["nonsense"], [""],
        ["0000:00"],
        ["emulated2"], ["0000:03:00.0", "03:00.0"], ["emulated", "emulated"],
        ["emulated", "0000:03:00.0"], ["0000:03:00.0"],
    ])
    func `targets that are none, twice the same, or alone in a switch are refused`(
        targets: [String]
    ) {
        let arguments = targets.flatMap { ["--device", $0] }
        #expect(throws: (any Error).self) { try VhostPCI.parseAsRoot(["run"] + arguments) }
    }
}
