import FunctionSupport
import HostSystem
import NetSupport
import PollEngine
import Testing
import VirtioSpec
import Virtqueue

@testable import VirtioNet

@Suite struct NetDriverTests {
    @Test func `start takes address, MTU, link and queues, and leaves offloads alone`() throws {
        let rig = try NetRig()
        try rig.driver.start()
        let identity = rig.driver.identity
        #expect(identity.macAddress == NetRig.address)
        #expect(identity.mtu == 1500)
        #expect(rig.driver.isLinkUp)
        #expect(rig.driver.state == .running)
        #expect(rig.driver.pairCount == 1)
        #expect(rig.station.features == identity.features)
        for bit: UInt8 in [0, 1, 7, 8, 9, 10, 11, 12, 13, 14, 28, 34, 35] {
            #expect(!identity.features.contains(FeatureBits(bit: bit)))
        }
        #expect(!identity.features.contains(.netMultiqueue))
        #expect(identity.features.contains([.accessPlatform, .orderPlatform, .eventIndex]))
        #expect(rig.station.commands == [.promiscuous(true)])
        try rig.driver.stop()
        #expect(!rig.station.isActive)
        #expect(rig.function.arenas == 0)
        #expect(rig.driver.state == .stopped)
    }

    @Test func `several pairs are told through the control queue behind all of the device's`()
        throws
    {
        let station = NetStation(address: NetRig.address, pairs: 4)
        let rig = try NetRig(station, NetOptions(queuePairs: 3, ringSize: 16))
        try rig.driver.start()
        #expect(rig.driver.pairCount == 3)
        #expect(station.commands == [.queuePairs(3), .promiscuous(true)])
        #expect(rig.driver.takePairs().count == 3)
        #expect(rig.driver.takePairs().isEmpty)
        try rig.driver.stop()
        #expect(rig.function.arenas == 0)
    }

    @Test func `more pairs than the device has are cut to what it has`() throws {
        let rig = try NetRig(options: NetOptions(queuePairs: 64, ringSize: 16))
        try rig.driver.start()
        #expect(rig.driver.pairCount == 2)
        #expect(rig.station.commands.first == .queuePairs(2))
        try rig.driver.stop()
    }

    @Test func `frames go both ways, merged ones too`() throws {
        let rig = try NetRig()
        var sent: [[UInt8]] = []
        rig.station.onFrame = { sent.append($0) }
        try rig.driver.start()
        var port = try rig.port()
        let frame = (0..<60).map { UInt8($0) }
        let long = (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        rig.station.deliver(frame)
        rig.station.deliver(long)
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 32) == 4)
        #expect(burst.count == 2)
        #expect(unsafe burst.entries[0].byteCount == 60)
        #expect(unsafe burst.entries[1].byteCount == 5000)
        // What came in goes out again.
        #expect(port.transmit(burst, from: 0, count: 1) == 1)
        port.finishTransmit()
        port.finishReceive()
        try rig.turn()
        #expect(sent == [frame])
        #expect(port.error == nil)
        try rig.driver.stop()
    }

    @Test func `with interrupts an arriving frame signals the pair's eventfd once asked for`()
        throws
    {
        let rig = try NetRig(options: NetOptions(ringSize: 16, usesInterrupts: true))
        try rig.driver.start()
        #expect(rig.driver.interruptProblem == nil)
        let pairs = rig.driver.takePairs()
        let wakeup = try #require(pairs.first?.wakeup)
        var port = try DevicePort(try #require(pairs.first))
        try rig.turn()
        // Under EVENT_IDX the very first frame may interrupt; from then on none does.
        rig.station.deliver([UInt8](repeating: 1, count: 60))
        _ = wakeup.drain()
        rig.station.deliver([UInt8](repeating: 1, count: 60))
        #expect(wakeup.drain() == 0)
        var burst = ChainBurst()
        _ = port.receive(into: &burst, limit: 32)
        port.finishReceive()
        let arrived = port.requestNotifications()
        #expect(!arrived)
        try rig.turn()
        rig.station.deliver([UInt8](repeating: 2, count: 60))
        #expect(wakeup.drain() == 1)
        try rig.driver.stop()
    }

    @Test func `a device with too few vectors is polled, and why is told`() throws {
        let rig = try NetRig(
            options: NetOptions(ringSize: 16, usesInterrupts: true),
            vectors: 1
        )
        try rig.driver.start()
        #expect(rig.driver.interruptProblem != nil)
        let pair = try #require(rig.driver.takePairs().first)
        #expect(pair.wakeup == nil)
        var port = try DevicePort(pair)
        // Nobody may sleep on it.
        let mustPoll = port.requestNotifications()
        #expect(mustPoll)
        try rig.driver.stop()
    }

    @Test func `the link is followed by configuration interrupts`() throws {
        let rig = try NetRig(options: NetOptions(ringSize: 16, usesInterrupts: true))
        try rig.driver.start()
        rig.station.setLink(up: false)
        try rig.turn()
        rig.station.setLink(up: true)
        try rig.turn()
        rig.station.interruptConfiguration()
        try rig.turn()
        #expect(rig.events == [.link(isUp: false), .link(isUp: true)])
        try rig.driver.stop()
    }

    @Test func `the link is followed by looking where there are no interrupts`() throws {
        let rig = try NetRig()
        try rig.driver.start()
        rig.station.setLink(up: false)
        try rig.turn()
        #expect(rig.events == [])
        rig.driver.check()
        rig.driver.check()
        #expect(rig.events == [.link(isUp: false)])
        #expect(!rig.driver.isLinkUp)
        try rig.driver.stop()
    }

    @Test func `a device without any optional feature is driven with one pair`() throws {
        let station = NetStation(address: NetRig.address)
        station.offeredFeatures = []
        let rig = try NetRig(station, NetOptions(queuePairs: 2, ringSize: 16))
        try rig.driver.start()
        #expect(rig.driver.identity.macAddress == nil)
        #expect(rig.driver.identity.mtu == nil)
        #expect(rig.driver.pairCount == 1)
        #expect(rig.driver.isLinkUp)
        let pair = try #require(rig.driver.takePairs().first)
        #expect(!pair.isMergeable)
        #expect(pair.receiveBuffers.size >= 1526)
        #expect(throws: VirtioErrorMatch.notSupported) {
            try VirtioErrorMatch.of { try rig.driver.send(.promiscuous(true)) }
        }
        try rig.driver.stop()
    }

    @Test func `a large MTU makes buffers that hold it`() throws {
        let station = NetStation(address: NetRig.address)
        station.offeredFeatures.remove(.netMergeableBuffers)
        station.configuration[10] = 0xff
        station.configuration[11] = 0xff
        let rig = try NetRig(station)
        try rig.driver.start()
        #expect(rig.driver.identity.mtu == 65_535)
        let pair = try #require(rig.driver.takePairs().first)
        #expect(pair.receiveBuffers.size >= 65_535 + 18 + 12)
        _ = try DevicePort(pair)
        try rig.driver.stop()
    }

    @Test func `stopped and started again, the device carries frames again`() throws {
        let rig = try NetRig()
        var sent = 0
        rig.station.onFrame = { _ in sent += 1 }
        for round in 1...20 {
            try rig.driver.start()
            var port = try rig.port()
            rig.station.deliver([UInt8](repeating: 1, count: 60))
            var burst = ChainBurst()
            #expect(port.receive(into: &burst, limit: 32) == 1)
            #expect(port.transmit(burst, from: 0, count: 1) == 1)
            port.finishTransmit()
            try rig.turn()
            #expect(sent == round)
            try rig.driver.stop()
            #expect(rig.function.arenas == 0)
        }
    }
}

extension NetRig {
    convenience init(options: NetOptions, vectors: Int? = nil) throws {
        try self.init(NetStation(address: NetRig.address), options, vectors: vectors)
    }
}
