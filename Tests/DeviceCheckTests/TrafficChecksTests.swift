import FunctionSupport
import HostSystem
import PCI
import Testing
import VirtioSpec

@testable import DeviceCheck

@Suite struct TrafficChecksTests {
    private func expectMisdeeds(_ table: [(NetStub.Misdeed, [String])]) throws {
        for (misdeed, ids) in table {
            try expectFailures(ids) { $0.device.misdeed = misdeed }
        }
    }

    @Test func `DEV-Q-01, DEV-Q-03: a device without a queue, one that takes nothing`() throws {
        try expectFailures(["DEV-Q-01"]) { $0.device.queueLimits = [256] }
        let function = try TamperedFunction(NetStub())
        function.device.misdeed = .deaf
        let found = try function.verdicts(["DEV-Q", "DEV-I", "DEV-X"])
        let failed = found.values.filter { $0.verdict == .fail }.map(\.id)
        #expect(failed == ["DEV-Q-03"], "what rests on it is not applicable")
        #expect(found["DEV-X-01"]?.verdict == .notApplicable)
    }

    @Test func `DEV-Q-02, DEV-Q-04, DEV-Q-05, DEV-Q-09: used elements that cannot be`() throws {
        try expectMisdeeds([
            (.inventive, ["DEV-Q-02"]), (.otherHead, ["DEV-Q-04", "DEV-Q-09"]),
            (.written, ["DEV-Q-05"]),
        ])
    }

    @Test func `DEV-Q-06, DEV-Q-07, DEV-Q-12: chains that are not understood`() throws {
        try expectMisdeeds([
            (.single, ["DEV-Q-06", "DEV-Q-07", "DEV-Q-12"]), (.flat, ["DEV-Q-12"]),
        ])
    }

    @Test func `DEV-Q-08, DEV-Q-10, DEV-Q-11: a device that tires`() throws {
        try expectMisdeeds([
            (.lazy, ["DEV-Q-08"]), (.tired(after: 40), ["DEV-Q-10", "DEV-Q-11"]),
            (.tired(after: 65_535), ["DEV-Q-11"]),
        ])
    }

    @Test func `DEV-Q-13: a queue that stays silent once it was reset`() throws {
        try expectMisdeeds([(.deafAfterQueueReset, ["DEV-Q-13"])])
    }

    @Test func `DEV-I-04, DEV-I-05, DEV-I-06: interrupts that are missing or astray`() throws {
        try expectMisdeeds([
            (.silent, ["DEV-I-04"]), (.misdirected, ["DEV-I-04", "DEV-I-05"]),
        ])
        // A vector that no queue has rings.
        try expectFailures(["DEV-I-06"]) { function in
            function.device.took = { [unowned function] in _ = function.interrupts[1]?.signal() }
        }
    }

    @Test func `DEV-I-07, DEV-I-08: interrupts that nobody asked for`() throws {
        try expectMisdeeds([
            (.importunate, ["DEV-I-07", "DEV-I-08"]), (.silent, ["DEV-I-08"]),
        ])
    }

    /// Header and frame as a good device returns them.
    private static func loop(_ sent: [UInt8]) -> [UInt8] {
        var bytes = sent
        bytes[10] = 1
        return bytes
    }

    @Test func `DEV-L-01, DEV-L-05: a loop that is good, and a wire that is none`() throws {
        let function = try TamperedFunction(NetStub())
        for result in try function.verdicts(["DEV-L"]).values {
            #expect(result.verdict == .notApplicable)
        }
        function.device.returns = Self.loop
        let found = try function.verdicts(["DEV-L"])
        #expect(found.count == 5)
        for result in found.values {
            #expect(result.verdict == .pass, "\(result.id): \(result.evidence)")
        }
    }

    @Test func `DEV-L-01, DEV-L-02, DEV-L-03, DEV-L-04: a frame that comes back changed`() throws {
        let changes: [(String, ([UInt8]) -> [UInt8])] = [
            ("DEV-L-01", { Self.loop($0.dropLast() + [0]) }),
            ("DEV-L-02", { Self.loop($0 + [0, 0, 0, 0]) }),
            ("DEV-L-02", { Self.loop($0.dropLast(3)) }),
            ("DEV-L-03", { $0 }),
            ("DEV-L-04", { Self.loop([1] + $0.dropFirst()) }),
        ]
        for (id, change) in changes {
            try expectFailures([id]) { $0.device.returns = change }
        }
    }

    @Test func `DEV-L-01: frames of others, and earlier ones, are passed over`() throws {
        let function = try TamperedFunction(NetStub())
        var last: [UInt8] = []
        function.device.returns = { sent in
            defer { last = sent }
            // The frame before this one, damaged: it must not be taken for this one.
            return last.isEmpty ? Self.loop(sent) : Self.loop(last.dropLast() + [0])
        }
        let found = try function.verdicts(["DEV-L-01", "DEV-L-02"])
        #expect(found["DEV-L-01"]?.verdict == .pass)
        #expect(found["DEV-L-02"]?.verdict == .notApplicable)
    }

    @Test func `DEV-L-05: a frame that comes back in silence`() throws {
        try expectFailures(["DEV-L-05"]) { function in
            function.device.returns = Self.loop
            function.device.misdeed = .silent
        }
    }

    @Test func `DEV-X-01, DEV-X-02, DEV-X-03: a device that does not forgive`() throws {
        try expectMisdeeds([(.unforgiving, ["DEV-X-01", "DEV-X-02", "DEV-X-03"])])
    }

    @Test func `DEV-I-01, DEV-I-02, DEV-I-03: vectors that are not kept`() throws {
        try expectFailures(["DEV-I-01"]) { $0.deafTo = [.configurationVector] }
        try expectFailures(["DEV-I-02"]) { $0.deafTo = [.queueVector] }
        try expectFailures(["DEV-I-03"], reading: .queueVector) { $0 == 0xffff ? 3 : $0 }
    }

    @Test func `DEV-X-05: a function reset that leaves the device as it is, or is not there`()
        throws
    {
        try expectFailures(["DEV-X-05"]) { function in
            function.resets = { () throws(PCIError) in throw .deviceGone }
        }
        let function = try TamperedFunction(NetStub())
        function.resets = { () throws(PCIError) in throw .notSupported("resetting it") }
        #expect(try function.verdicts(["DEV-X-05"])["DEV-X-05"]?.verdict == .notApplicable)
    }
}
