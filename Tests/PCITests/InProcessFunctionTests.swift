import GuestMemory
import HostSystem
import PCI
import Testing
import Virtqueue

@Suite struct InProcessFunctionTests {
    private let endpoint: FakeEndpoint
    private let function: InProcessFunction

    init() throws {
        endpoint = try FakeEndpoint()
        function = InProcessFunction(endpoint: endpoint)
    }

    private func enableMemory() throws {
        try function.writeConfiguration(ConfigurationHeader.command, .word, 0x6)
    }

    @Test func `registers are reached inside their BAR`() throws {
        try enableMemory()
        try function.writeRegister(0, 16, .long, 0x1234_5678)
        #expect(try function.readRegister(0, 17, .word) == 0x3456)
    }

    @Test(
        arguments: [
            (0, 0x4000), (0, 0x3ffd), (0, UInt64.max), (1, 0), (2, 8190), (5, 0), (6, 0), (-1, 0),
            (Int.max, 0),
        ] as [(Int, UInt64)]
    )
    func `HI-H1: an access outside its BAR is refused`(_ bar: Int, _ offset: UInt64) {
        #expect { try function.readRegister(bar, offset, .long) } throws: {
            "\($0)".hasPrefix("region/range")
        }
        #expect(throws: PCIError.self) { try function.writeRegister(bar, offset, .long, 0) }
        #expect(throws: PCIError.self) { try function.mapWindow(bar, offset: offset, size: 4) }
        #expect(throws: PCIError.self) { try function.doorbell(bar, offset, value: 0) }
    }

    @Test func `HI-H27: a window is the function's own memory`() throws {
        try enableMemory()
        let window = try function.mapWindow(2, offset: 4096, size: 4096)
        #expect(unsafe window.address == endpoint.windowMemory.address + 4096)
        #expect(throws: PCIError.self) { try function.mapWindow(2, offset: 4096, size: 4097) }
        #expect(throws: PCIError.self) { try function.mapWindow(2, offset: 0, size: 0) }
        #expect(throws: PCIError.self) { try function.mapWindow(0, offset: 0, size: 4) }
    }

    @Test func `HI-H23: no window is mapped while memory decoding is off`() {
        #expect(throws: PCIError.self) { try function.mapWindow(2, offset: 0, size: 4096) }
    }

    @Test func `a doorbell rings the eventfd behind its register`() throws {
        let bell = try function.doorbell(0, 64, value: 0)
        #expect(bell.ring() == .signalled)
        #expect(endpoint.bell.drain() == 1)
        #expect(throws: PCIError.self) { try function.doorbell(0, 68, value: 0) }
    }

    @Test func `connecting a vector enables MSI-X and unmasks that vector only`() throws {
        let event = try EventFD()
        try function.connectInterrupt(1, to: event)
        endpoint.fire(1)
        endpoint.fire(2)
        #expect(event.drain() == 1)
        #expect(endpoint.table.readPending(0, .byte) == 0b100)
        // Memory decoding is as the driver left it.
        #expect(endpoint.space.command == [])
        try function.connectInterrupt(1, to: nil)
        endpoint.fire(1)
        #expect(event.drain() == 0)
        #expect(endpoint.table.readPending(0, .byte) == 0b110)
    }

    @Test func `HI-H11: there is no vector past the table`() throws {
        #expect(try function.interruptVectorCount == 4)
        let event = try EventFD()
        for vector in [4, -1, 1 << 20, Int.max] {
            #expect(throws: PCIError.self) { try function.connectInterrupt(vector, to: event) }
        }
    }

    @Test func `HI-A52: a message for nobody is counted`() throws {
        function.raise(3)
        function.raise(-1)
        #expect(function.strayInterrupts == 2)
    }

    @Test func `arenas become memory at their device addresses`() throws {
        let low = try DMAArena(size: 4096, deviceAddress: 0x10000)
        let high = try DMAArena(size: 4096, deviceAddress: 0x20000)
        try function.mapDMA(low)
        try function.mapDMA(high)
        #expect(function.memory.covers(0x20000, 4096, .readWrite))
        #expect(!function.memory.covers(0x11000, 1, .read))
        let before = function.memory
        try function.unmapDMA(low)
        #expect(function.memory !== before)
        #expect(!function.memory.covers(0x10000, 1, .read))
        #expect(endpoint.memoryChanges == 3)
        // Whoever still holds the old table still has the pages.
        #expect(before.write([1], at: 0x10000))
    }

    @Test func `an arena over another is refused and changes nothing`() throws {
        let arena = try DMAArena(size: 8192, deviceAddress: 0x10000)
        let over = try DMAArena(size: 4096, deviceAddress: 0x11000)
        let wrapping = try DMAArena(size: 8192, deviceAddress: .max - 4095)
        try function.mapDMA(arena)
        let before = function.memory
        #expect(throws: PCIError.self) { try function.mapDMA(over) }
        #expect(throws: PCIError.self) { try function.mapDMA(wrapping) }
        #expect(function.memory === before)
        try function.unmapDMA(over)
        #expect(function.memory.covers(0x11000, 4096, .readWrite))
    }

    @Test func `HI-H24: a reset keeps vectors connected as a kernel does`() throws {
        let event = try EventFD()
        try function.connectInterrupt(0, to: event)
        try enableMemory()
        try function.reset()
        #expect(endpoint.resets == 1)
        #expect(endpoint.space.command == [])
        endpoint.fire(0)
        #expect(event.drain() == 1)
    }
}
