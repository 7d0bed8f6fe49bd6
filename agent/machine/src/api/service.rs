//! Every call of the service description, put to work. Whoever comes here may.

use std::sync::Arc;

use futures::StreamExt;
use machine_api::machine_server::Machine;
use machine_api::{
    Applied, ApplyRequest, Boots, CaptureRequest, CertificateList, CheckRequest, CheckResult, Chunk, ConnectionList,
    ContainerList, ControlGroupList, DebugInput, DebugOutput, DiskList, EtcdDefragmentation, EtcdRecoverRequest,
    EtcdRemoveRequest, EtcdRestorePart, EtcdStatus, EventRequest, Events, ExtensionList, FetchEtcdRequest,
    FetchUpdateRequest, FileSource, FirewallRuleList, ForwardPart, ImageList, InterfaceList, KeyList, LogLines,
    LogRequest, MachineStatus, MountList, Plan, PodList, PodLogRequest, ProcessList, PutSecretRequest, RecoveryKeys,
    RemoveExtensionRequest, RemoveSecretRequest, ResetRequest, RestartServiceRequest, RouteList, SealRequest,
    StartOptions, Text, TimeStatus, UnlockRequest, UpdateFound, UpdatePart, UpdateProgress, WipeRequest,
};
use sys::Linux;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Caller, Messages, Server, capture, check, debug, etcd, extension, fetch, forward, locks, look, manifest, refusal,
    reset, secret, support, update, wipe,
};
use crate::views::Look;

type Answer<T> = Result<Response<T>, Status>;

/// A caller, and who answers them.
pub(super) struct Session {
    pub(super) server: Arc<Server>,
    pub(super) caller: Caller,
}

impl Session {
    async fn look<L: Look>(&self) -> Answer<L> {
        L::look(&self.server).await.map(Response::new).map_err(refusal::away)
    }
}

fn text(told: Result<String, Status>) -> Answer<Text> {
    told.map(|text| Response::new(Text { text }))
}

#[tonic::async_trait]
impl Machine for Session {
    type ReadLogStream = Messages<LogLines>;
    type ReadEventsStream = Messages<Events>;
    type ReadPodLogStream = Messages<LogLines>;
    type CaptureStream = Messages<Chunk>;
    type DebugStream = Messages<DebugOutput>;
    type CollectSupportStream = Messages<Chunk>;
    type FetchUpdateStream = Messages<UpdateProgress>;
    type TakeEtcdSnapshotStream = Messages<Chunk>;
    type ForwardStream = Messages<Chunk>;

    async fn get_status(&self, _: Request<()>) -> Answer<MachineStatus> {
        self.look().await
    }

    async fn get_metrics(&self, _: Request<()>) -> Answer<Text> {
        text(Ok(crate::metrics::page(&self.server).await))
    }

    async fn get_crash(&self, _: Request<()>) -> Answer<Text> {
        text(look::crash(&self.server))
    }

    async fn list_processes(&self, _: Request<()>) -> Answer<ProcessList> {
        self.look().await
    }

    async fn list_control_groups(&self, _: Request<()>) -> Answer<ControlGroupList> {
        self.look().await
    }

    async fn list_disks(&self, _: Request<()>) -> Answer<DiskList> {
        self.look().await
    }

    async fn list_mounts(&self, _: Request<()>) -> Answer<MountList> {
        self.look().await
    }

    async fn list_interfaces(&self, _: Request<()>) -> Answer<InterfaceList> {
        self.look().await
    }

    async fn list_routes(&self, _: Request<()>) -> Answer<RouteList> {
        self.look().await
    }

    async fn list_firewall_rules(&self, _: Request<()>) -> Answer<FirewallRuleList> {
        self.look().await
    }

    async fn list_connections(&self, _: Request<()>) -> Answer<ConnectionList> {
        self.look().await
    }

    async fn get_time(&self, _: Request<()>) -> Answer<TimeStatus> {
        self.look().await
    }

    async fn list_certificates(&self, _: Request<()>) -> Answer<CertificateList> {
        self.look().await
    }

    async fn list_keys(&self, _: Request<()>) -> Answer<KeyList> {
        self.look().await
    }

    async fn list_images(&self, _: Request<()>) -> Answer<ImageList> {
        self.look().await
    }

    async fn list_pods(&self, _: Request<()>) -> Answer<PodList> {
        self.look().await
    }

    async fn list_containers(&self, _: Request<()>) -> Answer<ContainerList> {
        self.look().await
    }

    async fn get_boots(&self, _: Request<()>) -> Answer<Boots> {
        self.look().await
    }

    async fn read_log(&self, asked: Request<LogRequest>) -> Answer<Self::ReadLogStream> {
        look::log(&self.server, asked.into_inner()).map(Response::new)
    }

    async fn read_events(&self, asked: Request<EventRequest>) -> Answer<Self::ReadEventsStream> {
        look::events(&self.server, asked.into_inner()).map(Response::new)
    }

    async fn read_pod_log(&self, asked: Request<PodLogRequest>) -> Answer<Self::ReadPodLogStream> {
        look::pod_log(&self.server, asked.into_inner()).map(Response::new)
    }

    async fn capture(&self, asked: Request<CaptureRequest>) -> Answer<Self::CaptureStream> {
        capture::stream(&self.server, &self.caller.known(), asked.into_inner()).map(Response::new)
    }

    async fn debug(&self, input: Request<Streaming<DebugInput>>) -> Answer<Self::DebugStream> {
        let maker = self.server.runtime();
        debug::answer(&self.server, &self.caller.known(), maker, input.into_inner().boxed()).await.map(Response::new)
    }

    async fn restart_service(&self, asked: Request<RestartServiceRequest>) -> Answer<Text> {
        text(look::restart(&self.server, &asked.into_inner().name))
    }

    async fn collect_support(&self, _: Request<()>) -> Answer<Self::CollectSupportStream> {
        support::bundle(&self.server).await.map(Response::new)
    }

    async fn check(&self, asked: Request<CheckRequest>) -> Answer<CheckResult> {
        check::answer(asked.into_inner()).await.map(Response::new)
    }

    async fn get_manifest(&self, _: Request<()>) -> Answer<Text> {
        text(manifest::show(&self.server))
    }

    async fn apply_manifest(&self, asked: Request<ApplyRequest>) -> Answer<Applied> {
        let is_first = self.caller == Caller::Maintenance;
        manifest::apply(&self.server, asked.into_inner(), is_first).await.map(Response::new)
    }

    async fn keep_manifest(&self, _: Request<()>) -> Answer<Text> {
        text(manifest::keep(&self.server))
    }

    async fn update(&self, parts: Request<Streaming<UpdatePart>>) -> Answer<Text> {
        text(update::receive(&self.server, parts.into_inner().boxed()).await)
    }

    async fn look_at_update(&self, asked: Request<FileSource>) -> Answer<UpdateFound> {
        fetch::look(&self.server, asked.into_inner()).await.map(Response::new)
    }

    async fn fetch_update(&self, asked: Request<FetchUpdateRequest>) -> Answer<Self::FetchUpdateStream> {
        fetch::fetch(&self.server, asked.into_inner()).await.map(Response::new)
    }

    async fn roll_back(&self, asked: Request<StartOptions>) -> Answer<Text> {
        text(update::roll_back(&self.server, asked.into_inner()).await)
    }

    async fn list_extensions(&self, _: Request<()>) -> Answer<ExtensionList> {
        self.look().await
    }

    async fn add_extension(&self, parts: Request<Streaming<Chunk>>) -> Answer<Text> {
        text(extension::add(&self.server, parts.into_inner().boxed()).await)
    }

    async fn remove_extension(&self, asked: Request<RemoveExtensionRequest>) -> Answer<Text> {
        text(extension::remove(&self.server, &asked.into_inner().name))
    }

    async fn reboot(&self, asked: Request<StartOptions>) -> Answer<Text> {
        text(update::start_again(&self.server, asked.into_inner()).await)
    }

    async fn shut_down(&self, asked: Request<StartOptions>) -> Answer<Text> {
        text(update::shut_down(&self.server, asked.into_inner()).await)
    }

    async fn reset(&self, asked: Request<ResetRequest>) -> Answer<Plan> {
        reset::reset(&self.server, &self.caller, &asked.into_inner()).await.map(Response::new)
    }

    async fn wipe(&self, asked: Request<WipeRequest>) -> Answer<Plan> {
        wipe::wipe(&self.server, &self.caller.known(), asked.into_inner()).await.map(Response::new)
    }

    async fn unlock(&self, asked: Request<UnlockRequest>) -> Answer<Text> {
        text(locks::unlock(&self.server.run, &asked.into_inner().passphrase))
    }

    async fn seal_secret(&self, asked: Request<SealRequest>) -> Answer<Text> {
        text(secret::seal(asked.into_inner()).await)
    }

    async fn put_secret(&self, asked: Request<PutSecretRequest>) -> Answer<Text> {
        let PutSecretRequest { name, secret } = asked.into_inner();
        text(secret::put(&self.server, &name, &secret))
    }

    async fn remove_secret(&self, asked: Request<RemoveSecretRequest>) -> Answer<Text> {
        text(secret::remove(&self.server, &asked.into_inner().name))
    }

    async fn take_recovery_keys(&self, _: Request<()>) -> Answer<RecoveryKeys> {
        locks::recovery_keys(&Linux).map(Response::new)
    }

    async fn get_etcd_status(&self, _: Request<()>) -> Answer<EtcdStatus> {
        etcd::status(&self.server).await.map(Response::new)
    }

    async fn take_etcd_snapshot(&self, _: Request<()>) -> Answer<Self::TakeEtcdSnapshotStream> {
        etcd::snapshot(&self.server).await.map(Response::new)
    }

    async fn restore_etcd(&self, parts: Request<Streaming<EtcdRestorePart>>) -> Answer<EtcdStatus> {
        etcd::restore(&self.server, parts.into_inner().boxed()).await.map(Response::new)
    }

    async fn fetch_etcd(&self, asked: Request<FetchEtcdRequest>) -> Answer<EtcdStatus> {
        etcd::fetch(&self.server, asked.into_inner()).await.map(Response::new)
    }

    async fn recover_etcd(&self, asked: Request<EtcdRecoverRequest>) -> Answer<EtcdStatus> {
        etcd::recover(&self.server, asked.into_inner().force).await.map(Response::new)
    }

    async fn defragment_etcd(&self, _: Request<()>) -> Answer<EtcdDefragmentation> {
        etcd::defragment(&self.server).await.map(Response::new)
    }

    async fn remove_etcd_member(&self, asked: Request<EtcdRemoveRequest>) -> Answer<EtcdStatus> {
        etcd::remove(&self.server, &asked.into_inner().member).await.map(Response::new)
    }

    async fn forward(&self, parts: Request<Streaming<ForwardPart>>) -> Answer<Self::ForwardStream> {
        forward::answer(&self.server, &self.caller.known(), parts.into_inner().boxed()).await.map(Response::new)
    }
}
