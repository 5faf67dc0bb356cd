import HostSystem
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import VhostPCINet

/// The device against drivers that are slow, wrong or gone.
@Suite struct HostileDriverTests {
    private let rig: LoopRig

    init() throws {
        rig = try LoopRig()
    }

    // MARK: messages to the driver

    @Test func `VPN-D-10, VPN-D-11, VPN-D-12, VPN-D-14: what a driver is told of a peer`() throws {
        let driver = try ManualDriver(rig)
        try driver.post(8)
        let peer = try rig.peer()
        try peer.connect()
        guard case .memory(let memory) = try driver.message() else {
            Issue.record("the first message is not memory information")
            return
        }
        #expect(memory.location == .bar(2))
        #expect(memory.windowOffset == 0)
        #expect(memory.windowSize == UInt64(LoopRig.windowSize))
        #expect(memory.generation == 1)
        #expect(memory.regions.map(\.guestAddress) == [ScriptedPeer.guestBase])
        #expect(memory.regions.map(\.size) == [UInt64(ScriptedPeer.memorySize)])
        #expect(memory.regions[0].barOffset % 4096 == 0)
        #expect(try driver.next() == nil)
        try driver.acknowledge(1)
        guard case .queues(let queues) = try driver.message() else {
            Issue.record("the second message is not queue information")
            return
        }
        #expect(queues.total == 2)
        #expect(queues.queues.map(\.index) == [0, 1])
        #expect(queues.queues.map(\.notifyIndex) == [1, 2])
        #expect(queues.queues.map { $0.flags.contains(.peerTransmit) } == [false, true])
        #expect(try driver.message() == .connection(isOn: true))
        try rig.run(milliseconds: 50)
        #expect(try driver.next() == nil)
    }

    @Test func `a driver that never acknowledges gets ON after a second`() throws {
        let driver = try ManualDriver(rig)
        try driver.post(8)
        let peer = try rig.peer()
        try peer.connect()
        _ = try driver.message()
        let start = MonotonicClock.now
        _ = try driver.message()
        #expect(try driver.message() == .connection(isOn: true))
        #expect(MonotonicClock.now - start > 800_000_000)
    }

    @Test func `VPN-D-19: a buffer that is too small is not filled, the device asks for a reset`()
        throws
    {
        let driver = try ManualDriver(rig)
        try driver.post(1, size: 81)
        let peer = try rig.peer()
        try peer.connect()
        try rig.wait("NEEDS_RESET") { try driver.needsReset }
        #expect(try driver.next() == nil)
        #expect(driver.configuration.drain() == 1)
        #expect(rig.function.fault?.id == "vpci/buffer-size")
    }

    @Test func `VPN-D-19: a buffer that fits to the byte is enough`() throws {
        let driver = try ManualDriver(rig)
        try driver.post(1, size: 82)
        let peer = try rig.peer()
        try peer.connect()
        guard case .memory = try driver.message() else {
            Issue.record("no memory information")
            return
        }
        #expect(try !driver.needsReset)
    }

    @Test func `VPN-D-20: without buffers messages wait, and come in order with each buffer`()
        throws
    {
        let driver = try ManualDriver(rig)
        let peer = try rig.peer()
        try peer.connect()
        try rig.run(milliseconds: 50)
        #expect(rig.device.phase == .info)
        try driver.post(1)
        guard case .memory = try driver.message() else {
            Issue.record("no memory information")
            return
        }
        try driver.acknowledge()
        try rig.run(milliseconds: 50)
        #expect(try driver.next() == nil)
        try driver.post(1)
        guard case .queues = try driver.message() else {
            Issue.record("no queue information")
            return
        }
        #expect(try driver.next() == nil)
        try driver.post(1)
        #expect(try driver.message() == .connection(isOn: true))
    }

    @Test func `HI-G33: a driver without buffers later gets OFF and the newest state only`() throws
    {
        let driver = try ManualDriver(rig)
        let peer = try rig.peer()
        try driver.post(3)
        try peer.connect()
        try takeThree(driver)
        // No buffer is left. The first change waits for the driver, the others do not.
        let start = MonotonicClock.now
        for _ in 0..<20 {
            peer.regions = [
                .init(guestAddress: ScriptedPeer.guestBase, file: peer.file, size: 0x20000)
            ]
            try peer.setMemory()
            peer.regions = [
                .init(
                    guestAddress: ScriptedPeer.guestBase,
                    file: peer.file,
                    size: ScriptedPeer.memorySize
                )
            ]
            try peer.setMemory()
        }
        #expect(MonotonicClock.now - start < 2_000_000_000)
        #expect(rig.device.phase == .draining)
        #expect(rig.device.outbox.count == 1)
        try driver.post(8)
        #expect(try driver.message() == .connection(isOn: false))
        try driver.send(.off)
        guard case .memory(let memory) = try driver.message() else {
            Issue.record("no memory information")
            return
        }
        #expect(memory.generation == 2)
        #expect(memory.regions.map(\.size) == [UInt64(ScriptedPeer.memorySize)])
    }

    private func takeThree(_ driver: ManualDriver) throws {
        _ = try driver.message()
        try driver.acknowledge()
        _ = try driver.message()
        #expect(try driver.message() == .connection(isOn: true))
    }

    // MARK: messages from the driver

    @Test(
        arguments: [
            [0, 1], [1, 0], [2, 0], [3, 1], [0, 2], [1, 2], [4, 0], [255, 255], [0, 0, 0],
            [1, 1, 1],
        ] as [[UInt8]]
    )
    func `VPN-D-21, HI-G30: a message that is not for a driver to send makes it ask for a reset`(
        frame: [UInt8]
    ) throws {
        let driver = try ManualDriver(rig)
        let peer = try rig.peer()
        try driver.connect(peer)
        try driver.send(frame)
        #expect(try driver.needsReset)
        #expect(driver.configuration.drain() == 1)
        let id = try #require(rig.function.fault).id
        #expect(["vpci/order", "vpci/unknown", "vpci/cut"].contains(id))
        // Nothing more is taken or sent, once is enough, and the peer may look for another.
        try driver.send(frame)
        try driver.send(.off)
        #expect(driver.configuration.drain() == 0)
        try rig.wait("the end of the connection") { try peer.sawClose() }
    }

    @Test func `VPN-D-21: after the reset the same device works again`() throws {
        let driver = try ManualDriver(rig)
        try driver.send([9, 9])
        #expect(try driver.needsReset)
        let again = try ManualDriver(rig)
        #expect(try !again.needsReset)
        let peer = try rig.peer()
        try again.connect(peer)
        #expect(rig.device.phase == .connected)
    }

    @Test func `HI-G30: OFF without a peer is answered and changes nothing`() throws {
        let driver = try ManualDriver(rig)
        try driver.post(4)
        try driver.send(.off)
        #expect(try driver.message() == .connection(isOn: false))
        #expect(rig.device.phase == .waitPeer)
        #expect(try !driver.needsReset)
        let peer = try rig.peer()
        try driver.connect(peer)
    }

    @Test func `HI-G31: a window address that is not ours, wraps, or comes twice is refused`()
        throws
    {
        let driver = try ManualDriver(rig)
        try driver.post(8)
        let peer = try rig.peer()
        try peer.connect()
        _ = try driver.message()
        let bad = [0, driver.windowAddress + 4096, driver.windowAddress + 1, .max, .max - 4095]
        for address in bad { try driver.send(.windowAddress(address, generation: 1)) }
        #expect(rig.refusals() == bad.map { _ in "vpci/gva" })
        #expect(rig.device.phase == .info)
        #expect(try !driver.needsReset)
        try driver.acknowledge(1)
        #expect(rig.device.phase == .connected)
        try driver.acknowledge(1)
        #expect(rig.refusals().count == bad.count + 1)
        #expect(rig.device.phase == .connected)
    }

    @Test func `HI-G32: messages that are short or have no readable byte are ignored`() throws {
        let driver = try ManualDriver(rig)
        let peer = try rig.peer()
        try driver.connect(peer)
        try driver.send([0])
        try driver.send([], writable: 64)
        #expect(rig.refusals() == ["vpci/unknown", "vpci/unknown"])
        #expect(rig.device.phase == .connected)
        #expect(try !driver.needsReset)
    }

    @Test func `HI-G32: a flood of messages is worked off in turns`() throws {
        let driver = try ManualDriver(rig)
        for _ in 0..<10_000 { try driver.send([0]) }
        #expect(rig.refusals().count <= 10_000)
        let peer = try rig.peer()
        try driver.connect(peer)
        #expect(rig.device.phase == .connected)
    }

    @Test func `VPN-D-15: on OFF from the driver the peer is let go, then OFF is answered`() throws
    {
        let driver = try ManualDriver(rig)
        let peer = try rig.peer()
        try driver.connect(peer)
        rig.forgetEvents()
        try driver.send(.off)
        #expect(try driver.message() == .connection(isOn: false))
        try rig.wait("the end of the connection") { try peer.sawClose() }
        _ = peer.calls.map { $0.drain() }
        for slot in 0..<4 { rig.doorbells.ring(slot) }
        #expect(peer.calls.map { $0.drain() } == [0, 0])
    }

    // MARK: drivers that go or hang

    @Test func `HI-G34, VPN-D-24: a reset without OFF lets the peer go within a second`() throws {
        let driver = try ManualDriver(rig)
        let peer = try rig.peer()
        try driver.connect(peer)
        let start = MonotonicClock.now
        try rig.transport.reset()
        try rig.wait("the end of the connection") { try peer.sawClose() }
        #expect(MonotonicClock.now - start < 1_000_000_000)
        #expect(rig.device.phase == .reset)
        #expect(unsafe rig.window.address.load(as: UInt64.self) == 0)
        let next = try rig.peer()
        try ManualDriver(rig).connect(next)
    }

    @Test func `HI-G35: a driver that ignores OFF holds its peer up for a second, then loses it`()
        throws
    {
        let driver = try ManualDriver(rig)
        let peer = try rig.peer()
        try driver.connect(peer)
        peer[0x20000] = 7
        let start = MonotonicClock.now
        #expect(try peer.stop(1) == 0)
        let milliseconds = (MonotonicClock.now - start) / 1_000_000
        #expect(milliseconds > 900 && milliseconds < 2500)
        // The window is zero pages: what a hung driver stores there reaches nobody.
        let offset = 0x20000
        #expect(unsafe rig.window.address.load(fromByteOffset: offset, as: UInt8.self) == 0)
        unsafe rig.window.address.storeBytes(of: 9, toByteOffset: offset, as: UInt8.self)
        #expect(peer[0x20000] == 7)
        // And after its time is over it is told of the peer anew.
        #expect(try driver.message() == .connection(isOn: false))
        try driver.post(4)
        try driver.takeOn()
    }

    @Test func `VPN-D-16, VPN-D-17: OFF is there 100 ms after the peer went, the window stays`()
        throws
    {
        let driver = try ManualDriver(rig)
        var peer: ScriptedPeer? = try rig.peer()
        try driver.connect(try #require(peer))
        peer = nil
        try rig.run(milliseconds: 50)
        #expect(try driver.next() == [0, 0])
        #expect(rig.device.phase == .gone)
        for offset in stride(from: 0, to: LoopRig.windowSize, by: 4096) {
            unsafe rig.window.address.storeBytes(of: 1, toByteOffset: offset, as: UInt8.self)
        }
        // The next peer waits until this driver has answered.
        let next = try rig.peer()
        try next.connect()
        try rig.run(milliseconds: 50)
        #expect(rig.device.phase == .gone)
        try driver.send(.off)
        try driver.takeOn()
        #expect(rig.device.phase == .connected)
        let shown = unsafe rig.window.address.load(fromByteOffset: 0x30000, as: UInt8.self)
        #expect(shown == next[0x30000])
    }
}
