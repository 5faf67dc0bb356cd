import HostSystem
import PCI
import Testing

@testable import VFIO

/// What a kernel says of a function while it is in use.
@Suite struct HostFunctionTests {
    let kernel: FakeKernel
    let tree: FixtureTree
    let loop: EventLoop

    init() throws {
        kernel = try FakeKernel()
        tree = try FixtureTree()
        loop = try EventLoop()
    }

    func open() throws -> VFIODevice {
        try VFIODevice.open(FixtureTree.address, kernel: kernel, in: HostTree(root: tree.root))
    }

    /// Signals what a change connected, as the kernel would.
    func signal(_ index: VFIOInterruptIndex) throws {
        let change = try #require(kernel.changes.last { $0.index == index && !$0.events.isEmpty })
        EventFD.signal(change.events[0])
        try loop.turn(limitMilliseconds: 100)
    }

    @Test func `HI-J34: a kernel that wants its device back is heard`() throws {
        let device = try open()
        var told: [HostFunctionEvent] = []
        try device.watch(on: loop, line: false) { told.append($0) }
        #expect(Set(kernel.changes.map(\.index)) == [.request, .error])
        try signal(.request)
        try signal(.error)
        #expect(told == [.requested, .failed])
        let texts = told.compactMap { $0.refusal(of: device.address).map { "\($0)" } }
        #expect(texts[0].hasPrefix("vfio/device-requested: the kernel wants 0000:03:00.0 back"))
        #expect(texts[1].hasPrefix("vfio/device-error: 0000:03:00.0"))
        #expect(HostFunctionEvent.line.refusal(of: device.address) == nil)
        #expect(HostFunctionEvent.gone.refusal(of: device.address)?.id == "pci/device-gone")
    }

    @Test func `INTx is told until nobody watches`() throws {
        let device = try open()
        var told: [HostFunctionEvent] = []
        try device.watch(on: loop, line: true) { told.append($0) }
        try signal(.line)
        try device.setLineMasked(false)
        #expect(told == [.line])
        kernel.changes = []
        device.stopWatching()
        #expect(Set(kernel.changes.map(\.index)) == [.request, .error, .line])
        #expect(kernel.changes.allSatisfy { $0.count == 0 })
        device.stopWatching()
        #expect(kernel.changes.count == 3)
    }

    @Test func `a device without INTx or without requests is watched for the rest`() throws {
        kernel.interrupts[0] = nil
        kernel.interrupts[4] = nil
        let device = try open()
        #expect(failure { try device.watch(on: loop, line: true) { _ in } }.hasPrefix("pci/vector"))
        try device.watch(on: loop, line: false) { _ in }
        #expect(kernel.changes.map(\.index) == [.error])
        #expect(device.warning == nil)
    }

    @Test func `an end without a stop leaves nothing behind in the loop`() throws {
        var told = 0
        do {
            let device = try open()
            try device.watch(on: loop, line: false) { _ in told += 1 }
        }
        #expect(
            kernel.calls.suffix(4) == ["setInterrupts", "setInterrupts", "write", "unsetContainer"]
        )
        try loop.turn(limitMilliseconds: 0)
        #expect(told == 0)
    }
}
