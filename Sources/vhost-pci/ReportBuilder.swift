import PollEngine

/// Puts the engine's counts and the own peers' findings into the form of the report.
struct ReportBuilder {
    let engine: EngineReport
    /// Socket of each peer, by port name.
    let paths: [String: String]
    /// How often a front-end of a peer has connected, by port name.
    let connections: [String: UInt64]
    /// What the peer process of a port counted, by port name.
    let summaries: [String: PeerTraffic.Summary]
    let seconds: Double

    /// The report; without a reason the verdict is `ok`.
    func report(reasons: [String]) -> RunReport {
        RunReport(
            verdict: reasons.isEmpty ? .ok : .failed,
            reasons: reasons,
            mode: engine.mode.rawValue,
            durationSeconds: seconds,
            workers: engine.workers.map { worker in
                RunReport.Worker(
                    core: worker.core,
                    node: worker.node,
                    busyCycles: worker.busyCycles,
                    idleCycles: worker.idleCycles,
                    emptyPolls: worker.emptyPolls
                )
            },
            ports: engine.ports.map(port)
        )
    }

    private func port(_ port: EngineReport.Port) -> RunReport.Port {
        let packets = port.received.packets + port.transmitted.packets
        let bytes = port.received.bytes + port.transmitted.bytes
        let isPeer = port.kind == .peer
        let summary = summaries[port.name]
        return RunReport.Port(
            name: port.name,
            kind: kind(port.kind),
            path: isPeer ? paths[port.name] : port.kind == .tap ? port.name : nil,
            connections: isPeer ? connections[port.name] ?? 0 : nil,
            received: .init(packets: port.received.packets, bytes: port.received.bytes),
            transmitted: .init(packets: port.transmitted.packets, bytes: port.transmitted.bytes),
            lost: summary?.missing ?? port.drops["peer/no-buffer"] ?? 0,
            mpps: seconds > 0 ? Double(packets) / seconds / 1e6 : nil,
            gbitPerSecond: seconds > 0 ? Double(bytes) * 8 / seconds / 1e9 : nil,
            latency: summary.flatMap(latency),
            copiesPerPacket: copies(port),
            kicks: port.kind != .tap
                ? .init(
                    sent: port.kicksSent,
                    suppressed: port.kicksSuppressed,
                    full: port.notifyFull
                ) : nil,
            drops: port.drops.isEmpty ? nil : port.drops,
            ringErrors: port.ringErrors.isEmpty ? nil : port.ringErrors,
            cutLengths: port.cutLengths > 0 ? port.cutLengths : nil,
            unfinished: port.unfinished > 0 ? port.unfinished : nil,
            failure: port.failure,
            attachFailures: port.attachFailures > 0 ? port.attachFailures : nil
        )
    }

    private func kind(_ kind: PortKind) -> RunReport.Port.Kind {
        switch kind {
        case .peer: .peer
        case .tap: .tap
        case .device: .device
        }
    }

    private func latency(_ summary: PeerTraffic.Summary) -> RunReport.Latency? {
        guard let p50 = summary.latencyP50, let p99 = summary.latencyP99,
            let p999 = summary.latencyP999
        else { return nil }
        return RunReport.Latency(p50: p50, p99: p99, p999: p999)
    }

    /// Copies that were counted, for each packet whose way ended at this port; `nil` without any.
    private func copies(_ port: EngineReport.Port) -> Double? {
        let delivered = port.transmitted.packets + port.consumed
        return delivered > 0 ? Double(port.copies) / Double(delivered) : nil
    }
}
