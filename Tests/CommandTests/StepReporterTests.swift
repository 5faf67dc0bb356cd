import Glibc
import HostSystem
import Testing

@testable import vhost_pci

@Suite struct StepReporterTests {
    @Test func `a report that a full disk does not take is an error`() throws {
        let full = FileDescriptor(owning: unsafe open("/dev/full", O_WRONLY | O_CLOEXEC))
        #expect(StepReporter.write("line\n", to: full.rawValue) != nil)
        #expect(throws: SystemError.self) {
            try StepReporter.writeResult("report\n", to: full.rawValue)
        }
    }

    @Test(
        arguments: [
            (nil, "peer0 up"), (0, "peer0 up"), (1, "peer0 up"), (9, "peer0 up"), (8, "peer0 …"),
            (3, "p…"), (2, "…"),
        ] as [(Int?, String)]
    )
    func `a live line fits into a row`(columns: Int?, shown: String) {
        #expect(StepReporter.clip("peer0 up", columns: columns) == shown)
    }

    @Test func `who never waits leaves out what nobody reads, and says so`() throws {
        var ends: [Int32] = [-1, -1]
        try #require(unsafe pipe(&ends) == 0)
        let output = FileDescriptor(owning: ends[0])
        let input = FileDescriptor(owning: ends[1])
        let reporter = StepReporter(steps: input.rawValue, neverWaits: true)
        let line = String(repeating: "x", count: 9000)
        // A pipe holds 16 pages; a call that waited would never return.
        for _ in 0..<1000 { reporter.step(line) }
        var text = try output.readNow(count: 1 << 20)
        #expect(text.count < 1 << 17)
        reporter.step("again")
        text = try output.readNow(count: 1 << 20)
        let lines = String(decoding: text, as: UTF8.self).split(separator: "\n")
        #expect(lines.count == 2 && lines.last == "again")
        #expect(lines.first?.hasSuffix("lines left out: nobody read them") == true)
    }

    @Test func `a reader that went away is no error`() throws {
        var ends: [Int32] = [-1, -1]
        try #require(unsafe pipe(&ends) == 0)
        let input = FileDescriptor(owning: ends[1])
        close(ends[0])
        signal(SIGPIPE, SIG_IGN)
        #expect(StepReporter.write("line\n", to: input.rawValue) == nil)
        try StepReporter.writeResult("report\n", to: input.rawValue)
    }
}
