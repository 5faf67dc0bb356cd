import FunctionSupport
import NetSupport
import PollEngine
import Testing
import Virtio
import VirtioNet
import VirtioSpec
import Virtqueue

/// Rows of hostile-inputs section A in which the device misbehaves beside its packet rings.
@Suite struct HostileDeviceTests {
    /// Starting fails so; nothing of the device is kept, and it was told that we gave up.
    private func expectRefusal(
        _ error: VirtioErrorMatch,
        _ rig: NetRig,
        hasFailed: Bool = true
    ) {
        #expect(throws: error) { try VirtioErrorMatch.of { try rig.driver.start() } }
        #expect(rig.function.arenas == 0)
        #expect(rig.driver.takePairs().isEmpty)
        let failed = UInt32(DeviceStatus.failed.rawValue)
        #expect(rig.function.statuses.contains { $0 & failed != 0 } == hasFailed)
    }

    /// The same rig carries a frame once the device behaves.
    private func expectRecovery(_ rig: NetRig) throws {
        try rig.driver.start()
        var port = try rig.port()
        rig.station.deliver([UInt8](repeating: 1, count: 60))
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 32) == 1)
        port.finishReceive()
        try rig.driver.stop()
        #expect(rig.function.arenas == 0)
    }

    @Test func `HI-A47: a command without an answer ends at the limit, the queue is closed`() throws
    {
        let rig = try NetRig()
        try rig.driver.start()
        rig.station.misdeeds = .ignoresCommands
        #expect(throws: VirtioErrorMatch.controlTimeout) {
            try VirtioErrorMatch.of { try rig.driver.send(.allMulticast(true)) }
        }
        #expect(throws: VirtioErrorMatch.notSupported) {
            try VirtioErrorMatch.of { try rig.driver.send(.allMulticast(true)) }
        }
        // Packets do not need it.
        var port = try rig.port()
        rig.station.deliver([UInt8](repeating: 1, count: 60))
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 32) == 1)
        try rig.driver.stop()
        rig.station.misdeeds = []
        try expectRecovery(rig)
    }

    @Test func `HI-A47: a device that is mute at the start is given up`() throws {
        let rig = try NetRig()
        rig.station.misdeeds = .ignoresCommands
        expectRefusal(.controlTimeout, rig, hasFailed: false)
        rig.station.misdeeds = []
        try expectRecovery(rig)
    }

    @Test func `a refused number of pairs is an error, a refused address filter is told`() throws {
        let rig = try NetRig()
        rig.station.misdeeds = .refusesCommands
        try rig.driver.start()
        #expect(rig.events.count == 1)
        try rig.driver.stop()
        let several = try NetRig(options: NetOptions(queuePairs: 2, ringSize: 16))
        several.station.misdeeds = .refusesCommands
        expectRefusal(.command, several, hasFailed: false)
    }

    @Test func `HI-A48: NEEDS_RESET is told once and ends all looking, a reset revives`() throws {
        for usesInterrupts in [true, false] {
            let rig = try NetRig(
                options: NetOptions(ringSize: 16, usesInterrupts: usesInterrupts)
            )
            try rig.driver.start()
            var port = try rig.port()
            rig.station.fail("ring/loop")
            try rig.turn()
            rig.driver.check()
            rig.driver.check()
            #expect(rig.driver.state == .needsReset)
            #expect(rig.events.count == 1)
            guard case .needsReset(let status) = rig.events.first else {
                Issue.record("no word of the reset")
                return
            }
            #expect(status.contains(.needsReset))
            // The ring is quiet, not broken; what is under way is known by number.
            var burst = ChainBurst()
            #expect(port.receive(into: &burst, limit: 32) == 0)
            #expect(port.underWay == 0)
            try rig.driver.stop()
            try expectRecovery(rig)
        }
    }

    @Test func `HI-A48: a device that falls out of DRIVER_OK by itself is noticed`() throws {
        let rig = try NetRig()
        try rig.driver.start()
        rig.function.answer = { offset, _, value in
            offset == UInt64(CommonConfiguration.deviceStatus.offset) ? 0 : value
        }
        rig.driver.check()
        #expect(rig.driver.state == .needsReset)
        #expect(rig.events == [.needsReset([])])
        try rig.driver.stop()
        #expect(rig.function.arenas == 0)
    }

    @Test func `HI-A49: a device that takes no features is told FAILED and let go`() throws {
        let rig = try NetRig()
        rig.station.misdeeds = .refusesFeatures
        expectRefusal(.features, rig)
        rig.station.misdeeds = []
        try expectRecovery(rig)
    }

    @Test func `HI-A49: without VERSION_1 nothing is driven, unknown bits are left alone`() throws {
        let rig = try NetRig()
        rig.function.answer = { offset, _, value in
            // The high half of the offer is read second.
            offset == UInt64(CommonConfiguration.deviceFeature.offset) ? value & ~1 : value
        }
        expectRefusal(.features, rig)
        rig.function.answer = { offset, _, value in
            offset == UInt64(CommonConfiguration.deviceFeature.offset) ? value | 0xfff0_0000 : value
        }
        rig.station.offeredFeatures.insert(FeatureBits(bit: 63))
        try rig.driver.start()
        #expect(rig.driver.identity.features.rawValue >> 40 == 0)
        try rig.driver.stop()
    }

    @Test func `HI-A50: a status that never becomes 0 ends at the limit`() throws {
        let rig = try NetRig()
        rig.function.answer = { offset, _, value in
            offset == UInt64(CommonConfiguration.deviceStatus.offset) ? 1 : value
        }
        expectRefusal(.resetTimeout, rig, hasFailed: false)
        rig.function.answer = nil
        try expectRecovery(rig)
    }

    @Test func `HI-A51: a configuration that changes on every read is given up`() throws {
        let rig = try NetRig()
        var generation: UInt32 = 0
        rig.function.answer = { offset, _, value in
            guard offset == UInt64(CommonConfiguration.configurationGeneration.offset) else {
                return value
            }
            generation = (generation + 1) & 0x7f
            return generation
        }
        expectRefusal(.configurationUnstable, rig)
        rig.function.answer = nil
        try expectRecovery(rig)
    }

    @Test func `HI-A52: a storm of configuration interrupts costs looks and nothing else`() throws {
        let rig = try NetRig(options: NetOptions(ringSize: 16, usesInterrupts: true))
        rig.station.interruptConfiguration()
        try rig.driver.start()
        var port = try rig.port()
        for _ in 0..<10_000 { rig.station.interruptConfiguration() }
        let before = rig.function.accesses
        try rig.turn()
        // They had become one.
        #expect(rig.function.accesses - before < 64)
        #expect(rig.events == [])
        rig.station.deliver([UInt8](repeating: 1, count: 60))
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 32) == 1)
        try rig.driver.stop()
    }

    @Test func `HI-A53: a device that vanishes is told once and touched no more`() throws {
        let rig = try NetRig()
        try rig.driver.start()
        rig.function.isGone = true
        rig.driver.check()
        let accesses = rig.function.accesses
        rig.driver.check()
        #expect(rig.function.accesses == accesses)
        #expect(rig.events == [.gone])
        #expect(rig.driver.state == .gone)
        #expect(throws: VirtioErrorMatch.deviceGone) {
            try VirtioErrorMatch.of { try rig.driver.send(.allMulticast(true)) }
        }
        try rig.driver.stop()
        #expect(rig.function.arenas == 0)
    }

    @Test func `HI-A53: a device that is not there cannot be started`() throws {
        let rig = try NetRig()
        rig.function.isGone = true
        expectRefusal(.deviceGone, rig, hasFailed: false)
    }

    @Test func `HI-A54: absurd numbers of pairs and MTUs are refused, no memory follows them`()
        throws
    {
        for (offset, bytes) in [
            (8, [0, 0]), (8, [1, 0x80]), (8, [0xff, 0xff]), (8, [0, 0x80]), (10, [0, 0]),
            (10, [67, 0]),
        ] as [(Int, [UInt8])] {
            let rig = try NetRig(options: NetOptions(queuePairs: 2, ringSize: 16))
            rig.station.configuration.replaceSubrange(offset..<(offset + 2), with: bytes)
            expectRefusal(.configurationRange, rig)
        }
    }

    @Test func `HI-A54: a device without queues, or without this one, is refused`() throws {
        let none = try NetRig()
        none.function.answer = { offset, _, value in
            offset == UInt64(CommonConfiguration.queueCount.offset) ? 0 : value
        }
        expectRefusal(.configurationRange, none)
        let one = try NetRig()
        one.function.answer = { offset, _, value in
            offset == UInt64(CommonConfiguration.queueCount.offset) ? 1 : value
        }
        expectRefusal(.configurationRange, one)
        let empty = try NetRig(NetStation(address: NetRig.address, ringSize: 0))
        expectRefusal(.queueRefused, empty)
    }

    @Test func `HI-A54: a configuration too short for what is offered is refused`() throws {
        let station = NetStation(address: NetRig.address)
        station.configuration = Array(station.configuration.prefix(5))
        expectRefusal(.configurationRange, try NetRig(station))
    }
}
