public import HostSystem
internal import VhostUser
public import Virtio
public import VirtioSpec

/// A vhost-pci-net device: shows its driver the memory and rings of one peer, a virtio-net device
/// that reaches us as a vhost-user front-end.
///
/// What happens when is decided by `DeviceState`; this class carries it out. Everything runs on the
/// thread of the event loop.
///
///     let device = try VhostPCINetDevice(name: "vpci0", window: slice, doorbells: doorbells, loop: loop)
///     let function = try VirtioPCIFunction(device: device)
///     try device.listen(at: "/tmp/peer.sock")
public final class VhostPCINetDevice: VirtioDevice, PeerWindowProvider, DriverObserver {
    /// Where a peer's memory appears in the window.
    public enum Placement: Sendable, Equatable {
        /// Rule P: one region behind the other, from any number of files.
        case packed
        /// Rule F: where it lies in its file, one file in BAR 2 and one in BAR 4, so that a client in
        /// another process can map the files itself.
        case file
    }

    /// What may be chosen when a device is made.
    public struct Options: Sendable {
        /// The id is not registered with anybody, so it can be changed.
        public var type = DeviceType.vhostPCINet
        /// Refuse a peer whose memory could be truncated under us (`mem/unsealed`, HI-I12).
        public var requiresSealedMemory = false
        /// The driver lives in this process: the address that it reports for the window must then
        /// be the one we know (HI-G31).
        public var sharesAddressSpace = true
        /// Where a peer's memory appears.
        public var placement = Placement.packed
        /// Under rule F with windows of the device's own: how many times the memory that a peer has
        /// when they are laid out, so that more can be added to it later.
        public var windowHeadroom: UInt64 = 1
        /// Under rule F with windows of the device's own: the longest that is made, in bytes.
        public var largestWindow: UInt64 = 1 << 40

        /// The defaults.
        public init() {}
    }

    /// For messages.
    public let name: String
    /// Which device this is.
    public var type: DeviceType { options.type }
    /// Called for each step and each refusal.
    public var report: ((DeviceEvent) -> Void)?
    /// Queue pairs of a peer that are served.
    public let queuePairs: Int
    /// Where the connection stands.
    public var phase: DeviceState.Phase { state.phase }
    /// Rule F: a client reads where the windows are once, when it connects. While this is set, peers
    /// with other files than those laid out are refused (`mem/file`); those with the same files come
    /// and go.
    public var isWindowFixed = false
    /// Rule F: the windows were laid out anew, for a peer whose memory became known. A function made
    /// before shows BARs of other lengths: it is reset and replaced by a new one here.
    public var windowsChanged: (() -> Void)?

    let options: Options
    let loop: EventLoop
    let window: PeerWindow
    let notify: PeerNotify
    /// The windows are made by this device, as long as peers need them.
    let ownsWindows: Bool
    let doorbells: DoorbellTable

    var backend: Backend?
    var mirror = FeatureMirror()
    var progress = RingProgress()
    /// What the front-end last said.
    var description: PeerDescription?
    /// What the driver was last told.
    var announced: PeerDescription?
    var resume: (() -> Void)?
    /// Pairs of the present connection whose error descriptors were signalled.
    private var brokenPairs: Set<Int> = []
    var hasHandedPositionsOver = false

    private var state = DeviceState()
    private var events: [DeviceState.Event] = []
    private var isProcessing = false
    private var timers: [DeviceState.Timer: EventLoop.Source] = [:]
    var memoryCheck: EventLoop.Source?
    private lazy var kicks = KickWatch(loop: loop) { [weak self] ring in self?.kicked(ring) }

    /// Set from DRIVER_OK until the driver goes.
    var context: (any DeviceContext)?
    var outbox = ControlOutbox()
    var controlReceive: DeviceBufferQueue?
    var controlTransmit: DeviceBufferQueue?
    var isDrainScheduled = false
    /// The table whose window address the driver has reported.
    var acknowledgedGeneration: UInt32?

    /// Index of the queue that carries messages to the driver.
    static let controlReceiveQueue = 0
    /// Index of the queue that carries messages from the driver.
    static let controlTransmitQueue = 1
    /// Index of the first receive queue.
    static let firstReceiveQueue = 2
    /// How often the window is looked at for truncated files, in milliseconds (HI-I11).
    static let memoryCheckMilliseconds: UInt64 = 100

    /// Makes a device with windows of its own, laid out by rule F when the first peer's memory is
    /// known: until then there is one page. Only then it should be presented to anybody, as a
    /// function of its own, and `windowsChanged` says when.
    public convenience init(
        name: String,
        queuePairs: Int = 1,
        loop: EventLoop,
        options: Options = Options()
    ) throws(SystemError) {
        var options = options
        options.placement = .file
        self.init(
            name: name,
            window: PeerWindowSlice(mapping: try Mapping.anonymous(length: 4096)),
            doorbells: try DoorbellTable(count: 2 * max(1, queuePairs)),
            firstDoorbell: 0,
            queuePairs: queuePairs,
            loop: loop,
            options: options,
            ownsWindows: true
        )
    }

    /// Makes a device without a peer.
    ///
    /// It uses `2 * queuePairs` slots of `doorbells`, from `firstDoorbell` on, and the slice of the
    /// window for itself alone.
    public convenience init(
        name: String,
        window: PeerWindowSlice,
        doorbells: DoorbellTable,
        firstDoorbell: Int = 0,
        queuePairs: Int = 1,
        loop: EventLoop,
        options: Options = Options()
    ) {
        self.init(
            name: name,
            window: window,
            doorbells: doorbells,
            firstDoorbell: firstDoorbell,
            queuePairs: queuePairs,
            loop: loop,
            options: options,
            ownsWindows: false
        )
    }

    private init(
        name: String,
        window: PeerWindowSlice,
        doorbells: DoorbellTable,
        firstDoorbell: Int,
        queuePairs: Int,
        loop: EventLoop,
        options: Options,
        ownsWindows: Bool
    ) {
        self.ownsWindows = ownsWindows
        self.name = name
        self.queuePairs = max(1, queuePairs)
        self.loop = loop
        self.options = options
        self.doorbells = doorbells
        self.window = PeerWindow(slice: window)
        notify = PeerNotify(
            doorbells: doorbells,
            first: firstDoorbell,
            count: 2 * self.queuePairs
        )
    }

    /// Listens for front-ends; call once.
    public func listen(at path: String) throws(SystemError) {
        try listen(on: try UnixListener(path: path))
    }

    /// Takes front-ends from a socket that is there already; call once.
    public func listen(on listener: UnixListener) throws(SystemError) {
        backend = try Backend(
            listener: listener,
            loop: loop,
            offer: BackendOffer(features: mirror.offerToPeer, queuePairs: queuePairs),
            delegate: self
        )
    }

    /// Ends the connection, stops listening, and lets go of loop and window for good.
    public func close() {
        backend?.close()
        backend = nil
        deactivate()
        kicks.stop()
        for timer in DeviceState.Timer.allCases { cancel(timer) }
        stopMemoryCheck()
    }

    /// Own queues and the peer's share these bits; network features only as far as the peer agreed
    /// (VPN-D-06).
    public var offeredFeatures: FeatureBits { mirror.offerToDriver }

    /// Two control queues, then one receive queue for each transmit queue of the peer (VPN-D-09).
    public var queueLimits: [UInt16] {
        [64, 64] + [UInt16](repeating: 256, count: queuePairs)
    }

    /// There is no configuration space.
    public var configuration: [UInt8] { [] }

    /// There is nothing to write.
    public func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { false }

    // MARK: events and actions

    /// Takes an event in, in order: one that comes while another is handled waits for it.
    func post(_ event: DeviceState.Event) {
        events.append(event)
        guard !isProcessing else { return }
        isProcessing = true
        defer { isProcessing = false }
        while !events.isEmpty {
            let before = state.phase
            for action in state.handle(events.removeFirst()) { perform(action) }
            if state.phase != before { report?(.phase(state.phase)) }
        }
    }

    /// Number of the newest table.
    var generation: UInt32 { state.generation }

    private func perform(_ action: DeviceState.Action) {
        switch action {
        case .start(let timer): start(timer)
        case .cancel(let timer): cancel(timer)
        case .place: place()
        case .clearWindow: clearWindow()
        case .connectRings: connectRings()
        case .disconnectRings: disconnectRings()
        case .recordProgress: recordProgress()
        case .send(let notice): send(notice)
        case .withdraw: outbox.withdraw()
        case .resumePeer: resumePeer()
        case .disconnectPeer(let why): backend?.disconnect(why)
        }
    }

    private func start(_ timer: DeviceState.Timer) {
        cancel(timer)
        timers[timer] = loop.after(milliseconds: timer.milliseconds) { [weak self] in
            self?.timers[timer] = nil
            self?.post(.expired(timer))
        }
    }

    private func cancel(_ timer: DeviceState.Timer) {
        if let source = timers.removeValue(forKey: timer) { loop.remove(source) }
    }

    private func resumePeer() {
        let resume = self.resume
        self.resume = nil
        hasHandedPositionsOver = true
        resume?()
    }

    // MARK: rings

    private func connectRings() {
        brokenPairs = []
        guard let announced else { return }
        for ring in announced.rings where ring.isStarted {
            guard let used = usedIndex(of: ring) else { continue }
            let next = progress.nextAvailable(ring.index) ?? ring.nextAvailable
            progress.begin(ring.index, nextAvailable: next, used: used)
        }
        refuse { () throws(Refusal) in try notify.connect(announced.calls) }
        watchKicks()
    }

    func watchKicks() {
        guard let announced else { return }
        refuse { () throws(Refusal) in try kicks.watch(announced.transmitKicks) }
    }

    /// Whoever drives the device found a ring of this queue pair broken and works on the pair no
    /// more: the peer is told, once a connection, at the error descriptors of both rings (HI-D66).
    ///
    /// For a driver in the same process; there is no message for it.
    public func ringsBroke(pair: Int) {
        guard phase == .connected, let announced, brokenPairs.insert(pair).inserted else { return }
        for ring in announced.rings where ring.index / 2 == pair && ring.isStarted {
            if let error = ring.error { EventFD.signal(error.rawValue) }
        }
    }

    func disconnectRings() {
        notify.disconnect()
        kicks.stop()
    }

    /// How far each ring got; and one signal for each, since doorbells that were rung after
    /// `disconnectRings` reached nobody.
    private func recordProgress() {
        guard let announced else { return }
        for ring in announced.rings where progress.active.contains(ring.index) {
            guard let used = usedIndex(of: ring) else { continue }
            progress.end(ring.index, used: used)
        }
        refuse { () throws(Refusal) in try notify.signalAll() }
    }

    /// VPN-D-05: a kick of transmit queue i is an interrupt of receive queue i.
    private func kicked(_ ring: Int) {
        context?.interruptQueue(Self.firstReceiveQueue + ring / 2)
    }

    /// Reports what `body` refuses.
    func refuse(_ body: () throws(Refusal) -> Void) {
        do throws(Refusal) {
            try body()
        } catch {
            report?(.refused(error))
        }
    }
}
