import GuestMemory
import HostSystem
import PCI
import Testing

@testable import VFIO

/// Vectors that come and go, and kernels that count differently.
@Suite struct VFIOInterruptsTests {
    let kernel: FakeKernel
    let tree: FixtureTree
    let first: EventFD
    let second: EventFD

    init() throws {
        kernel = try FakeKernel()
        tree = try FixtureTree()
        first = try EventFD()
        second = try EventFD()
    }

    func open() throws -> VFIODevice {
        try VFIODevice.open(FixtureTree.address, kernel: kernel, in: HostTree(root: tree.root))
    }

    private func set(_ start: Int, _ events: [EventFD?]) -> VFIOInterruptChange {
        VFIOInterruptChange(
            flags: 0x24,
            index: .messageExtended,
            start: start,
            count: events.count,
            events: events.map { $0?.descriptor.rawValue ?? -1 }
        )
    }

    private let off = VFIOInterruptChange(
        flags: 0x21,
        index: .messageExtended,
        start: 0,
        count: 0
    )

    @Test func `vectors are set one by one where the kernel allows it`() throws {
        let device = try open()
        try device.connectInterrupt(1, to: first)
        try device.connectInterrupt(3, to: second)
        try device.connectInterrupt(1, to: second)
        try device.connectInterrupt(1, to: nil)
        #expect(
            kernel.changes == [
                set(0, [nil, first]), set(3, [second]), set(1, [second]), set(1, [nil]),
            ]
        )
        try device.connectInterrupt(3, to: nil)
        #expect(kernel.changes.last == off)
        try device.connectInterrupt(3, to: nil)
        try device.connectInterrupt(0, to: nil)
        #expect(kernel.changes.count == 5)
    }

    @Test func `a fixed number of vectors is enabled at once`() throws {
        kernel.interrupts[2] = Answer.interrupts(count: 4, flags: 9)
        let device = try open()
        try device.connectInterrupt(0, to: first)
        try device.connectInterrupt(3, to: second)
        #expect(kernel.changes == [set(0, [first, nil, nil, nil]), set(3, [second])])
    }

    @Test func `growing beyond a fixed number means off and on, and wakes everybody`() throws {
        kernel.interrupts[2] = Answer.interrupts(count: 100, flags: 9)
        let device = try open()
        try device.connectInterrupt(0, to: first)
        try device.connectInterrupt(64, to: second)
        #expect(kernel.changes.map(\.count) == [64, 0, 65])
        #expect(kernel.changes.last?.events.first == first.descriptor.rawValue)
        #expect(first.drain() == 1)
        #expect(second.drain() == 0)
    }

    @Test func `HI-A54: a host with fewer vectors is asked again, or named`() throws {
        kernel.interrupts[2] = Answer.interrupts(count: 100, flags: 9)
        kernel.vectorsAvailable = 8
        let device = try open()
        try device.connectInterrupt(2, to: first)
        #expect(kernel.changes.map(\.count) == [64, 8])
        #expect(
            failure { try device.connectInterrupt(8, to: second) }.hasPrefix("irq/vectors: 9 ")
        )
        // Those that were there are there again.
        #expect(kernel.changes.last?.count == 8)
        #expect(kernel.changes.last?.events[2] == first.descriptor.rawValue)
        #expect(first.drain() == 1)
    }

    @Test func `a kernel that refuses a single vector gets all of them anew`() throws {
        let device = try open()
        try device.connectInterrupt(0, to: first)
        kernel.errors = ["setInterrupts": .invalidArgument]
        #expect(failure { try device.connectInterrupt(1, to: second) }.contains("setInterrupts"))
        kernel.errors = ["setInterrupts": .ioFailure]
        #expect(failure { try device.connectInterrupt(1, to: second) }.contains("setInterrupts"))
    }

    @Test func `HI-A52: no vector beyond the count reaches the kernel`() throws {
        let device = try open()
        for vector in [-1, 4, 2048, Int.max, Int.min] {
            #expect(
                failure { try device.connectInterrupt(vector, to: first) }
                    .hasPrefix("pci/vector")
            )
        }
        #expect(kernel.changes.isEmpty)
    }

    @Test func `the line, errors and give-back requests have eventfds of their own`() throws {
        let device = try open()
        try device.connect(.line, to: first)
        try device.setLineMasked(false)
        try device.setLineMasked(true)
        try device.connect(.error, to: second)
        try device.connect(.request, to: second)
        #expect(kernel.changes.map(\.flags) == [0x24, 0x11, 0x9, 0x24, 0x24])
        #expect(kernel.changes.map(\.index) == [.line, .line, .line, .error, .request])
        #expect(failure { try device.connect(.message, to: first) }.hasPrefix("pci/vector"))
        #expect(device.count(of: .request) == 1)
        kernel.interrupts[4] = nil
        #expect(try open().count(of: .request) == 0)
        kernel.interrupts[4] = Answer.interrupts(count: 1, flags: 0)
        #expect(try open().count(of: .request) == 0)
    }
}
