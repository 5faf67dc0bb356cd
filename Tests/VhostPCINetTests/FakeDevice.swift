import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import VhostPCINet

/// A vhost-pci-net device that says whatever a test tells it to.
final class FakeDevice: VirtioDevice, PeerWindowProvider {
    let type = DeviceType.vhostPCINet
    var offeredFeatures = FeatureMirror.supported
    var queueLimits: [UInt16] = [64, 64, 256, 256]
    let configuration: [UInt8] = []
    let peerWindow: Mapping
    let peerDoorbells: DoorbellTable
    private(set) var activations = 0
    private(set) var context: (any DeviceContext)?
    /// What queue 0 held at DRIVER_OK.
    private(set) var buffersAtStart: [Int] = []
    /// Messages of the driver.
    private(set) var received: [DriverMessage] = []
    /// Answers OFF with OFF.
    var answersOff = true
    /// Runs when a message of the driver came.
    var whenReceived: (() -> Void)?
    private var receive: DeviceBufferQueue?
    private var transmit: DeviceBufferQueue?
    private var buffers: [DeviceBufferQueue.Buffer] = []

    init(windowSize: Int = 1 << 20) throws {
        peerWindow = try Mapping.anonymous(length: windowSize)
        peerDoorbells = try DoorbellTable(count: 4)
    }

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { false }
    func acceptsFeatures(_ features: FeatureBits) -> Bool { true }

    func activate(_ context: any DeviceContext) {
        activations += 1
        self.context = context
        receive = try? DeviceBufferQueue(context: context, queue: 0)
        transmit = try? DeviceBufferQueue(context: context, queue: 1)
        takeBuffers()
        buffersAtStart = buffers.map(\.writableCount)
    }

    func queueNotified(_ queue: Int) {
        takeBuffers()
        while let buffer = transmit?.next() {
            transmit?.complete(buffer)
            guard let message = try? DriverMessage(frame: buffer.readable) else { continue }
            received.append(message)
            whenReceived?()
            if message == .off, answersOff { send(.connection(isOn: false)) }
        }
    }

    func deactivate() {
        context = nil
        receive = nil
        transmit = nil
        buffers = []
    }

    func send(_ message: DeviceMessage) {
        send(message.frame)
    }

    func send(_ frame: [UInt8]) {
        takeBuffers()
        guard !buffers.isEmpty else {
            Issue.record("the driver has no buffer posted")
            return
        }
        receive?.complete(buffers.removeFirst(), writing: frame)
    }

    private func takeBuffers() {
        while let buffer = receive?.next() { buffers.append(buffer) }
    }
}

/// A function that can be pulled out: every access then reads as ones, as on hardware.
final class RemovableFunction: PCIFunction {
    let inner: InProcessFunction
    var isGone = false

    init(_ inner: InProcessFunction) {
        self.inner = inner
    }

    private func ones(_ width: AccessWidth) -> UInt32 {
        UInt32.max >> UInt32(32 - 8 * width.rawValue)
    }

    func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        isGone ? ones(width) : try inner.readConfiguration(offset, width)
    }

    func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        if !isGone { try inner.writeConfiguration(offset, width, value) }
    }

    func barSize(_ bar: Int) throws(PCIError) -> UInt64 { try inner.barSize(bar) }

    func readRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 {
        isGone ? ones(width) : try inner.readRegister(bar, offset, width)
    }

    func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        if !isGone { try inner.writeRegister(bar, offset, width, value) }
    }

    func mapWindow(_ bar: Int, offset: UInt64, size: UInt64) throws(PCIError) -> BARWindow {
        try inner.mapWindow(bar, offset: offset, size: size)
    }

    func doorbell(_ bar: Int, _ offset: UInt64, value: UInt16) throws(PCIError) -> Doorbell {
        try inner.doorbell(bar, offset, value: value)
    }

    func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError) {
        try inner.connectInterrupt(vector, to: event)
    }

    var interruptVectorCount: Int { get throws(PCIError) { try inner.interruptVectorCount } }

    func mapDMA(_ arena: DMAArena) throws(PCIError) { try inner.mapDMA(arena) }
    func unmapDMA(_ arena: DMAArena) throws(PCIError) { try inner.unmapDMA(arena) }
    func makeArena(size: Int) throws(PCIError) -> DMAArena { try inner.makeArena(size: size) }
    func releaseArena(_ arena: DMAArena) throws(PCIError) { try inner.releaseArena(arena) }
    func reset() throws(PCIError) { try inner.reset() }
}
