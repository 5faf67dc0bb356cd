import FunctionSupport
import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import VhostPCINet

/// The driver against devices that are slow, wrong or gone.
@Suite struct HostileDeviceTests {
    let loop: EventLoop
    let device: FakeDevice
    private let function: TamperedFunction<FakeDevice>
    let host = RecordingHost()
    let driver: VhostPCINetDriver

    init() throws {
        loop = try EventLoop()
        device = try FakeDevice()
        function = try TamperedFunction(device)
        driver = VhostPCINetDriver(
            transport: try PCITransport(function: function),
            loop: loop,
            host: host
        )
    }

    // MARK: set-up and ON

    @Test func `VPN-M-01: buffers of 4096 bytes are there before DRIVER_OK`() throws {
        try driver.start()
        #expect(device.buffersAtStart.count >= 16)
        #expect(device.buffersAtStart.allSatisfy { $0 >= 4096 })
        #expect(driver.address.bytes[0] & 3 == 2)
    }

    @Test func `VPN-M-01: buffers that were used are posted again`() throws {
        try driver.start()
        for _ in 0..<500 {
            device.send([9, 9])
            try loop.turn(limitMilliseconds: 10)
        }
        #expect(host.refusals.count == 500)
    }

    @Test func `VPN-M-07: receive queues are set up for every one the device has`() throws {
        try driver.start()
        let context = try #require(device.context)
        #expect(context.queue(2) != nil)
        #expect(context.queue(3) != nil)
    }

    @Test func `VPN-M-03, VPN-M-06: nothing is handed over before ON`() throws {
        try driver.start()
        try say(.memory(memory()))
        #expect(host.connection == nil)
        guard case .windowAddress(let address, let generation) = try #require(device.received.first)
        else {
            Issue.record("the window was not acknowledged")
            return
        }
        #expect(address == UInt64(UInt(bitPattern: unsafe device.peerWindow.address)) + 0x1000)
        #expect(generation == 1)
        try say(.queues(queues()))
        #expect(host.connection == nil)
        try say(.connection(isOn: true))
        #expect(try #require(host.connection).rings.count == 2)
    }

    @Test func `HI-A54: a device with too few queues is refused and reset`() throws {
        device.queueLimits = [64, 64]
        let endpoint = try VirtioPCIFunction(device: device)
        let other = VhostPCINetDriver(
            transport: try PCITransport(function: InProcessFunction(endpoint: endpoint)),
            loop: loop,
            host: host
        )
        #expect(throws: VirtioError.self) { try other.start() }
        #expect(device.context == nil)
    }

    // MARK: OFF and stop

    @Test func `VPN-M-04: threads let go before OFF is acknowledged`() throws {
        try connect()
        var order: [String] = []
        host.whileDisconnecting = { order.append("quiet") }
        device.whenReceived = { order.append("answer") }
        try say(.connection(isOn: false))
        #expect(order == ["quiet", "answer"])
        #expect(device.received.last == .off)
        #expect(host.connection == nil)
    }

    @Test func `VPN-M-05: stop waits for the device's OFF, then resets`() throws {
        try connect()
        driver.stop()
        #expect(device.received.last == .off)
        #expect(host.disconnects == 1)
        #expect(device.context == nil)
        #expect(host.refusals.isEmpty)
        #expect(host.events.last == .stopped)
    }

    @Test func `HI-G8: a device that does not answer OFF is left after a second, and it is told`()
        throws
    {
        try connect()
        device.answersOff = false
        let start = MonotonicClock.now
        driver.stop()
        let milliseconds = (MonotonicClock.now - start) / 1_000_000
        #expect(milliseconds >= 900 && milliseconds < 2000)
        #expect(host.refusals == ["vpci/off-timeout"])
        #expect(device.context == nil)
    }

    @Test func `HI-I6: stop with nothing connected takes less than 100 ms, and start works again`()
        throws
    {
        try driver.start()
        let start = MonotonicClock.now
        driver.stop()
        #expect(MonotonicClock.now - start < 100_000_000)
        driver.stop()
        try connect()
        #expect(host.connection != nil)
    }

    // MARK: resets and removal

    @Test
    func `VPN-M-17: on NEEDS_RESET threads let go, then the device is reset and driven again`()
        throws
    {
        try connect()
        var wasActive: Bool?
        host.whileDisconnecting = { [device] in wasActive = device.context != nil }
        device.context?.fail(DeviceFault("test"))
        try turn(until: { device.activations == 2 })
        #expect(wasActive == true)
        #expect(host.connection == nil)
        #expect(host.events.contains(.needsReset))
        try connect(isStarted: true)
        #expect(host.connection != nil)
    }

    @Test func `VPN-M-17: a device that asks for a reset again and again is left alone`() throws {
        try driver.start()
        let deadline = Deadline(milliseconds: 8000)
        while device.activations < 20, !deadline.hasPassed {
            device.context?.fail(DeviceFault("test"))
            try loop.turn(limitMilliseconds: 10)
            if case .failed = host.events.last { break }
        }
        #expect(device.activations == VhostPCINetDriver.maximumRestarts + 1)
        #expect(device.context == nil)
    }

    @Test func `VPN-M-18: a device that vanishes stops everything and is not waited for`() throws {
        try connect()
        function.isGone = true
        let window = try #require(host.connection).memory
        try turn(until: { host.events.contains(.deviceGone) })
        #expect(host.disconnects == 1)
        // The window is left as it was: whoever still looks there does not fault.
        #expect(window.read(0x1000, 1) == [0])
        let start = MonotonicClock.now
        driver.stop()
        #expect(MonotonicClock.now - start < 100_000_000)
        #expect(host.disconnects == 1)
    }

    @Test func `VPN-M-18: a device that vanishes while OFF is waited for ends the wait`() throws {
        try connect()
        device.answersOff = false
        device.whenReceived = { [function] in function.isGone = true }
        let start = MonotonicClock.now
        driver.stop()
        #expect(MonotonicClock.now - start < 2_000_000_000)
        #expect(host.connection == nil)
    }

    // MARK: bad information

    @Test(arguments: [0, 1, 5] as [UInt64])
    func `HI-G3: a BAR that is absent or holds registers is refused`(bar: UInt64) throws {
        try driver.start()
        try say(.memory(memory(bar: bar)))
        #expect(host.refusals == ["vpci/bar"])
        #expect(device.received.isEmpty)
        try say(.queues(queues()))
        try say(.connection(isOn: true))
        #expect(host.connection == nil)
    }

    @Test func `HI-G11: a window larger than its BAR is refused`() throws {
        try driver.start()
        try say(.memory(memory(windowSize: 1 << 20)))
        #expect(host.refusals == ["vpci/bar"])
        try say(.memory(memory()))
        try say(.queues(queues()))
        try say(.connection(isOn: true))
        #expect(host.connection != nil)
    }

    @Test func `HI-G4: a window by address is refused`() throws {
        try driver.start()
        var information = memory()
        information.location = .address(
            UInt64(UInt(bitPattern: unsafe device.peerWindow.address))
        )
        try say(.memory(information))
        #expect(host.refusals == ["vpci/gva"])
    }

    /// What can be wrong with a queue, and the error it leads to.
    enum Defect: String, CaseIterable {
        case descriptorsOutside, usedRingWraps, descriptorsUnaligned, usedRingUnaligned
        case sizeZero, sizeOdd, packed, slotOutside, direction

        var id: String {
            switch self {
            case .descriptorsOutside, .usedRingWraps: "ring/area"
            case .descriptorsUnaligned, .usedRingUnaligned: "ring/align"
            case .sizeZero, .sizeOdd, .packed: "ring/size"
            case .slotOutside: "notify/index"
            case .direction: "vpci/order"
            }
        }

        func spoil(_ queue: inout PeerQueueInformation.Queue) {
            switch self {
            case .descriptorsOutside: queue.descriptorArea = 0x10_0000
            case .usedRingWraps: queue.deviceArea = 0xffff_ffff_ffff_f000
            case .descriptorsUnaligned: queue.descriptorArea = 0x1008
            case .usedRingUnaligned: queue.deviceArea = 0x3002
            case .sizeZero: queue.size = 0
            case .sizeOdd: queue.size = 24
            case .packed: queue.flags.insert(.packed)
            case .slotOutside: queue.notifyIndex = .max
            case .direction: queue.flags.remove(.peerTransmit)
            }
        }
    }

    @Test(arguments: Defect.allCases)
    func `HI-G6: a queue that cannot be used is left out with its pair, the others work`(
        defect: Defect
    ) throws {
        try driver.start()
        try say(.memory(memory()))
        var information = queues(count: 4)
        defect.spoil(&information.queues[1])
        try say(.queues(information))
        try say(.connection(isOn: true))
        #expect(host.refusals == [defect.id])
        #expect(try #require(host.connection).rings.map(\.index) == [2, 3])
    }

    @Test func `VPN-M-09: rings that touch the end of a region work, one byte more does not`()
        throws
    {
        try driver.start()
        try say(.memory(memory()))
        var information = queues()
        // 8 entries: 6 + 8 * 8 bytes of used ring, up to the end of 0x8000 bytes at 0.
        information.queues[0].deviceArea = 0x8000 - 72
        information.queues[1].deviceArea = 0x8000 - 68
        try say(.queues(information))
        try say(.connection(isOn: true))
        #expect(host.refusals == ["ring/area"])
    }

    @Test func `HI-G12: a peer that uses more than we took is not connected, and sent away once`()
        throws
    {
        device.offeredFeatures = [.version1]
        try driver.start()
        try say(.memory(memory()))
        var information = queues()
        for index in 0..<2 { information.queues[index].features = FeatureBits.eventIndex.rawValue }
        try say(.queues(information))
        try say(.connection(isOn: true))
        #expect(host.connection == nil)
        #expect(host.refusals == ["vpci/features"])
        #expect(device.received.last == .off)
    }

    @Test func `VPN-M-07: a peer's control queue is not handed over`() throws {
        try driver.start()
        try say(.memory(memory()))
        var information = queues(count: 3)
        information.queues[2].flags = [.peerControl, .started, .enabled]
        try say(.queues(information))
        try say(.connection(isOn: true))
        #expect(try #require(host.connection).rings.map(\.index) == [0, 1])
    }

    @Test func `a ring that is not started needs no addresses`() throws {
        try driver.start()
        try say(.memory(memory()))
        var information = queues()
        information.queues[1] = .init(
            index: 1,
            size: 0,
            flags: .peerTransmit,
            notifyIndex: 9,
            descriptorArea: 0,
            driverArea: 0,
            deviceArea: 0
        )
        try say(.queues(information))
        try say(.connection(isOn: true))
        #expect(host.refusals.isEmpty)
        #expect(try #require(host.connection).rings.map(\.isStarted) == [true, false])
    }

    // MARK: helpers

    func connect(isStarted: Bool = false) throws {
        if !isStarted { try driver.start() }
        try say(.memory(memory()))
        try say(.queues(queues()))
        try say(.connection(isOn: true))
        #expect(host.connection != nil)
    }

    func say(_ message: DeviceMessage) throws {
        device.send(message)
        try loop.turn(limitMilliseconds: 100)
    }

    func turn(
        until condition: () -> Bool,
        location: SourceLocation = #_sourceLocation
    ) throws {
        let deadline = Deadline(milliseconds: 3000)
        while !condition() {
            guard !deadline.hasPassed else {
                Issue.record("it did not happen in time", sourceLocation: location)
                return
            }
            try loop.turn(limitMilliseconds: 10)
        }
    }

    private func memory(bar: UInt64 = 2, windowSize: UInt64 = 0x10000) -> PeerMemoryInformation {
        PeerMemoryInformation(
            location: .bar(bar),
            windowOffset: 0x1000,
            windowSize: windowSize,
            generation: 1,
            regions: [.init(guestAddress: 0, size: 0x8000, userAddress: 0, barOffset: 0x1000)]
        )
    }

    private func queues(count: UInt16 = 2) -> PeerQueueInformation {
        PeerQueueInformation(
            total: UInt32(count),
            queues: (0..<count).map {
                .init(
                    index: $0,
                    size: 8,
                    flags: $0 % 2 == 1
                        ? [.enabled, .started, .peerTransmit] : [.enabled, .started],
                    notifyIndex: $0,
                    descriptorArea: 0x1000,
                    driverArea: 0x2000,
                    deviceArea: 0x3000
                )
            }
        )
    }
}
